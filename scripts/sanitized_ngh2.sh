#!/bin/sh
# Build ngh2 and the libnghttp2 inside it with gcc's address and undefined-behaviour sanitizers.
#
#   scripts/sanitized_ngh2.sh DIRECTORY
#
# makes a virtual environment in DIRECTORY that holds the sanitized ngh2, and DIRECTORY/bin/sanitized-python,
# which starts that environment's Python with all that the sanitizers need. PYTHON names the interpreter to
# build for (default: python3). Needs gcc with libasan and libubsan; cmake and ninja come with the build.
# Where that is there already, it does nothing.
set -eu

version=0.3.0
sha256=09b995aa65b8a397de652fd7a9b3877d6d1e24c10d2effc36204a3f37aa73440

if [ $# -ne 1 ]; then
    echo "usage: $0 DIRECTORY" >&2
    exit 2
fi
target=$(mkdir -p "$1" && cd "$1" && pwd)
finished="$target/.sanitized-$version"
if [ -e "$finished" ]; then
    exit 0
fi

libasan=$(gcc -print-file-name=libasan.so)
libubsan=$(gcc -print-file-name=libubsan.so)
for library in "$libasan" "$libubsan"; do
    # gcc answers with the bare name when it does not have the library.
    if [ ! -e "$library" ]; then
        echo "$0: gcc has no $library: install gcc's sanitizer libraries" >&2
        exit 1
    fi
done

"${PYTHON:-python3}" -m venv "$target"
export PIP_DISABLE_PIP_VERSION_CHECK=1

"$target/bin/python" -m pip --quiet download --no-binary ngh2 --no-deps --dest "$target" "ngh2==$version"
sdist="$target/ngh2-$version.tar.gz"
echo "$sha256  $sdist" | sha256sum --check --quiet

# A Debug build adds no -O3 behind our -O1 and keeps the assertions of the glue code (libnghttp2 always keeps its
# own). CFLAGS reach the Cython modules and the vendored C files alike, and the linking of both.
CC=gcc \
CFLAGS='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1' \
"$target/bin/python" -m pip --quiet install --no-deps --no-cache-dir --force-reinstall \
    --config-settings=cmake.build-type=Debug \
    --config-settings=install.strip=false \
    "$sdist"
# What tests/soak/fuzz_engine.py needs beside it.
"$target/bin/python" -m pip --quiet install hpack

# CPython frees little at its end, so leaks are not looked for. PYTHONMALLOC=malloc gives every Python object a
# block of its own: a pointer into a freed bytes object is then seen, where Python's pools would hide it.
cat > "$target/bin/sanitized-python" <<END
#!/bin/sh
LD_PRELOAD="$libasan \${LD_PRELOAD:-}" \\
ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1:\${ASAN_OPTIONS:-}" \\
UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:\${UBSAN_OPTIONS:-}" \\
PYTHONMALLOC=malloc \\
exec "$target/bin/python" "\$@"
END
chmod +x "$target/bin/sanitized-python"

# A build that lost its flags on the way would find nothing for ever: ask the module itself.
core=$(echo "$target"/lib/python3*/site-packages/ngh2/_core*.so)
for symbol in __asan_report_load1 __ubsan_handle_; do
    if ! grep -q "$symbol" "$core"; then
        echo "$0: $core was not built with the sanitizers ($symbol is missing)" >&2
        exit 1
    fi
done
"$target/bin/sanitized-python" -c 'import ngh2; ngh2.Connection(ngh2.Role.SERVER).initiate_connection()'
touch "$finished"
