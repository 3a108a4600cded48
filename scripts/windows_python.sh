#!/usr/bin/env bash
# Puts a real Windows CPython 3.11 (64 bit) with the project's dependencies into .venv-windows, to be
# run under Wine: the Windows side can be tried without a Windows machine.
#
#   scripts/windows_python.sh                    make it, or bring its packages up to date
#   .venv-windows/python -m remsvc --help        run it; the project's own code comes from src/
#
# The interpreter's DLL and extension modules come from a wheel that carries them for its own users
# (panda3d's deploy_libs); the standard library's Python files are those of a CPython 3.11 on this
# machine, which PYTHON311 may name.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$PWD/.venv-windows

fail() { echo "windows_python.sh: $*" >&2; exit 1; }

debian_packages=(wine64 wine gcc-mingw-w64-x86-64)
if ! command -v wine >/dev/null || ! command -v x86_64-w64-mingw32-gcc >/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "install these packages first: ${debian_packages[*]}"
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${debian_packages[@]}" >/dev/null
fi

is_python311() { [ "$("$1" -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)" = "3 11" ]; }
for python in ${PYTHON311:-.venv/bin/python python3.11 python3}; do
  ! is_python311 "$python" || break
done
is_python311 "$python" || fail "PYTHON311 must name a CPython 3.11 with pip"
wheels=(--platform win_amd64 --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none --only-binary=:all:)
pip=("$python" -m pip -q --disable-pip-version-check)

this=$(sha256sum scripts/windows_python.sh)
if [ "$this" != "$(cat "$dir/made-by" 2>/dev/null)" ]; then
  rm -rf "$dir"
  mkdir -p "$dir/DLLs"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  "${pip[@]}" download --no-deps "${wheels[@]}" -d "$work" 'panda3d==1.10.*'
  "$python" -m zipfile -e "$work"/panda3d-*.whl "$work/x"
  cp "$work"/x/deploy_libs/*.dll "$dir"
  cp "$work"/x/deploy_libs/*.pyd "$work"/x/deploy_libs/{libssl-3,libcrypto-3,libffi-8,sqlite3}.dll "$dir/DLLs"
  cp -r "$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" "$dir/Lib"
  rm -rf "$dir"/Lib/{lib-dynload,test,site-packages} "$dir"/Lib/config-3.11*
  mkdir "$dir/Lib/site-packages"
  cat >"$work/python.c" <<'C'
#include <windows.h>
int wmain(int argc, wchar_t **argv) {
  HMODULE library = LoadLibraryW(L"python311.dll");
  if (!library) return 99;
  int (*py_main)(int, wchar_t **) = (void *)GetProcAddress(library, "Py_Main");
  return py_main(argc, argv);
}
C
  x86_64-w64-mingw32-gcc -municode -O2 -o "$dir/python.exe" "$work/python.c"
  # Extension modules for any Python 3 want python3.dll, which only forwards.
  {
    printf 'LIBRARY python3\nEXPORTS\n'
    x86_64-w64-mingw32-objdump -p "$dir/python311.dll" | sed -n 's/^\t\[ *[0-9]*\] \([A-Za-z_]\w*\)$/\1 = python311.\1/p'
  } >"$work/python3.def"
  x86_64-w64-mingw32-gcc -shared -nostdlib -Wl,--entry,0 -o "$dir/python3.dll" "$work/python3.def"
  # Part of Windows, and what the Rust code in cryptography wants of it; Wine 8 lacks it.
  cat >"$work/bcryptprimitives.c" <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(void *buffer, ULONG length);
__declspec(dllexport) BOOL ProcessPrng(void *buffer, SIZE_T length) { return SystemFunction036(buffer, length); }
C
  x86_64-w64-mingw32-gcc -shared -O2 -o "$dir/bcryptprimitives.dll" "$work/bcryptprimitives.c" -ladvapi32
  cat >"$dir/python" <<'SH'
#!/usr/bin/env bash
# Under Wine, Python refuses a regular file as a standard stream: pipes between.
here=$(cd "$(dirname "$0")" && pwd)
export WINEPREFIX="${WINEPREFIX:-$here/prefix}" WINEDEBUG="${WINEDEBUG:--all}"
wine "$here/python.exe" "$@" 2> >(cat >&2) | cat
exit "${PIPESTATUS[0]}"
SH
  chmod +x "$dir/python"
  WINEPREFIX=$dir/prefix WINEDEBUG=-all wine wineboot -i >/dev/null 2>&1 </dev/null
  printf '%s\n' "$this" >"$dir/made-by"
fi

# What pyproject.toml asks for in the extra "server" and those that it takes in, in the versions of constraints.txt;
# colorama is what click asks for on Windows (pip judges that by the machine it runs on), pytest runs
# tests/windows/native, psutil ends what tests leave.
requirements=$("$python" - <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
for line in [*project["dependencies"], *extras["http2"], *extras["cli"], *extras["server"], "colorama", "psutil", "pytest", "pytest-asyncio", "pytest-timeout"]:
    if not line.startswith(project["name"]):
        print(line)
PY
)
requirements+=$'\n'"# as of $(sha256sum constraints.txt)"
if [ "$requirements" != "$(cat "$dir/requirements.txt" 2>/dev/null)" ]; then
  printf '%s\n' "$requirements" >"$dir/requirements.new"
  "${pip[@]}" install --root-user-action=ignore --upgrade --target "$dir/Lib/site-packages" "${wheels[@]}" -c constraints.txt -r "$dir/requirements.new"
  mv "$dir/requirements.new" "$dir/requirements.txt"
fi
# Wine shows the root of the file system as drive Z:.
printf 'Z:%s\n' "${PWD//\//\\}\\src" >"$dir/Lib/site-packages/remsvc.pth"
"$dir/python" -c 'import sys, platform; print(sys.version.split()[0], sys.platform, platform.platform())' </dev/null
