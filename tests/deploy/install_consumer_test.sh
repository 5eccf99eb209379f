#!/usr/bin/env bash
# Installs the client library into an empty prefix, moves the prefix, and builds the same small program
# against it twice: by the CMake package and by pkg-config. Moved, because a path of the build tree or
# of the first prefix must not matter.
#
# usage: install_consumer_test.sh BUILD_DIR CXX
set -euo pipefail

build=$1 cxx=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

DESTDIR='' cmake --install "$build" --prefix "$work/first" --component client >/dev/null
mv "$work/first" "$work/moved"
prefix=$work/moved

if grep -rlF -e "$build" -e "$here" "$prefix" --include='*.cmake' --include='*.pc' --include='*.h'; then
  echo "installed files name the build tree" >&2
  exit 1
fi

echo "== CMake package"
cmake -S "$here/consumer" -B "$work/build" -G Ninja -DCMAKE_CXX_COMPILER="$cxx" \
  -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
cmake --build "$work/build"
"$work/build/consumer"

echo "== pkg-config"
pc=$(dirname "$(find "$prefix" -name kvasir.pc)")
read -ra flags < <(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs kvasir)
"$cxx" -std=c++20 "$here/consumer/main.cc" -o "$work/by_pkg_config" "${flags[@]}"
"$work/by_pkg_config"
