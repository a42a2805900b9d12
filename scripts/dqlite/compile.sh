#!/usr/bin/env bash
# Compiles dqlite's sources without its configure script, which takes longer than the compiler does. setup.sh, `make asan`
# and `make test-engine` call it with what they need.
#
#   compile.sh TREE OUT lib [CFLAGS…]    OUT/lib/libdqlite.a and OUT/include
#   compile.sh TREE OUT tests [CFLAGS…]  OUT/unit-test and OUT/raft-test: dqlite's tests of what the patches touch, its VFS with
#                                        the system's SQLite, and its Raft on simulated disks and networks
set -euo pipefail

tree=$1 out=$2 what=$3
shift 3

# What configure finds on every Linux that muster runs on, and dqlite's own compiler flags without its warnings.
flags=(-std=c11 -pipe -fno-strict-aliasing -fstack-protector-strong -fstack-clash-protection -fdata-sections -ffunction-sections
  -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DHAVE_LINUX_IO_URING_H -DHAVE_LINUX_AIO_ABI_H -DHAVE_DECL_RWF_NOWAIT=1
  -DLZ4_AVAILABLE -DLZ4_ENABLED -DDQLITE_VERSION_BUILD_TAG='""' -DMUNIT_TEST_NAME_LEN=60 "$@")

# objects DIR FLAGS… compiles the sources named on standard input into DIR, on all processors.
objects() {
  local dir=$1
  shift
  mkdir -p "$dir"
  (cd "$tree" && xargs -P "$(nproc)" -I{} sh -c 'o=$(echo "$1" | tr / _); shift; exec "${CC:-cc}" "$@" -o "'"$dir"'/$o.o"' sh {} "${flags[@]}" "$@" -c {})
}

# list NAME prints the sources that Makefile.am names for NAME.
list() {
  awk -v name="$1_sources" '
    tolower($1) == name { on = 1 }
    on { for (i = 1; i <= NF; i++) if ($i ~ /\.c$/) print $i; if (!/\\$/) on = 0 }' "$tree/Makefile.am"
}

rm -rf "$out"
mkdir -p "$out"
case $what in
  lib)
    { list basic_dqlite; list libraft_la; } | objects "$out/obj" -fvisibility=hidden -DRAFT_API=
    mkdir -p "$out/lib" "$out/include"
    ar crs "$out/lib/libdqlite.a" "$out"/obj/*.o
    cp "$tree/include/dqlite.h" "$out/include/"
    rm -rf "$out/obj"
    ;;
  tests)
    printf '%s\n' src/{vfs,format,tracing}.c src/lib/assert.c test/lib/{fault,fs,heap,munit,sqlite}.c \
      test/unit/{main,test_vfs,test_vfs_extra}.c | objects "$out/obj" -w
    "${CC:-cc}" "$@" -o "$out/unit-test" "$out"/obj/*.o -lsqlite3 -lpthread -lm -ldl
    rm -rf "$out/obj"
    {
      list libraft_la
      list raft_core_integration_test
      printf '%s\n' src/lib/assert.c test/lib/munit.c test/raft/lib/{addrinfo,aio,cluster,dir,fault,fsm,heap,loop,tcp}.c \
        test/raft/integration/test_uv_send.c test/raft/unit/test_byte.c
    } | objects "$out/obj" -w -I. -Iinclude
    "${CC:-cc}" "$@" -o "$out/raft-test" "$out"/obj/*.o -luv -llz4 -lpthread -lm -ldl
    rm -rf "$out/obj"
    ;;
  *) echo "compile.sh: lib or tests" >&2; exit 2 ;;
esac
