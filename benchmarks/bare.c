/* How fast this kernel starts and reaps /bin/sh: posix_spawn with both outputs on pipes, which are read
 * to their ends, and waitpid. Prints commands per second.
 *
 *     bare COUNT
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void read_to_the_end(int descriptor)
{
    char buffer[65536];
    ssize_t size;
    while ((size = read(descriptor, buffer, sizeof buffer)) > 0)
        ;
    if (size < 0)
        fail("read");
    close(descriptor);
}

static void run_one(void)
{
    static char *const arguments[] = {"/bin/sh", "-c", "true", NULL};
    int out[2], err[2], status;
    pid_t pid;
    posix_spawn_file_actions_t actions;

    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
        fail("pipe2");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    if (posix_spawn(&pid, arguments[0], &actions, NULL, arguments, environ))
        fail("posix_spawn");
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(err[1]);
    read_to_the_end(out[0]);
    read_to_the_end(err[0]);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        fail("waitpid");
}

int main(int count, char **arguments)
{
    struct timespec start, end;
    long commands = count == 2 ? atol(arguments[1]) : 0;

    if (commands < 1) {
        fprintf(stderr, "usage: bare COUNT\n");
        return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long number = 0; number < commands; number++)
        run_one();
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    printf("%.3f\n", (double)commands / seconds);
    return 0;
}
