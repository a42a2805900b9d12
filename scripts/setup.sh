#!/usr/bin/env bash
# Sets up everything that building and testing muster needs, on Debian 12 or newer, as root or with sudo.
# Safe to repeat: what is already there is left alone, and a second run takes well under a second.
#
#   scripts/setup.sh build   C compiler, libuv, lz4 and one libdqlite: the source of Debian's package in the version that
#                            scripts/dqlite/pin names, with the patches beside it, built into .deps/dqlite
#   scripts/setup.sh test    the above and the programs the tests drive (sqlite3, age, bird2, chromium, tools of ext4 and btrfs; promtool into .deps/bin)
#   scripts/setup.sh bench   the above and the yardstick (etcd)
#   scripts/setup.sh asan    the same libdqlite under AddressSanitizer, into .deps/dqlite-asan
#   scripts/setup.sh arm64   a cross compiler, an emulator, and the same libdqlite for arm64, into .deps/arm64, for `make dist`
#   scripts/setup.sh engine  dqlite's own tests of what the patches touch, into .deps/dqlite-tests
set -euo pipefail
cd "$(dirname "$0")/.."

deps=$PWD/.deps
read -r dqlite_version dqlite_sha256 <scripts/dqlite/pin

say()  { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v go >/dev/null || fail "Go is not on the PATH: install Go 1.26 or newer, then try again."
command -v apt-get >/dev/null || fail "apt-get is not here: this script knows Debian 12 or newer; on other systems build dqlite $dqlite_version with scripts/dqlite/compile.sh and point CGO_CFLAGS and CGO_LDFLAGS at it."

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "Debian packages are missing and this is neither root nor a machine with sudo: run as root: apt-get install $*"; fi
}

installed() { dpkg-query -W -f='${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed'; }

fresh_lists=
packages() {
  local missing=() p log=$deps/apt.log
  for p in "$@"; do installed "$p" || missing+=("$p"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing Debian packages: ${missing[*]}"
  mkdir -p "$deps"
  if [ -z "$fresh_lists" ]; then
    as_root apt-get -q update >"$log" 2>&1 || fail "apt-get update failed (no network, or no Debian mirror configured); its words are in .deps/apt.log."
    fresh_lists=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}" >>"$log" 2>&1 ||
    fail "apt-get could not install ${missing[*]}; its words are in .deps/apt.log."
}

# The archive entry that this machine is configured with: "URI<TAB>keyring".
archive() {
  local f
  for f in /etc/apt/sources.list.d/*.sources; do
    [ -e "$f" ] || continue
    awk 'BEGIN { RS = ""; FS = "\n" }
      { uri = key = suites = ""
        for (i = 1; i <= NF; i++) {
          if ($i ~ /^URIs:/)      { split($i, w, /[ \t]+/); uri = w[2] }
          if ($i ~ /^Signed-By:/) { split($i, w, /[ \t]+/); key = w[2] }
          if ($i ~ /^Suites:/)    suites = $i
        }
        if (uri != "" && suites !~ /security/) { print uri "\t" key; exit } }' "$f"
  done
  [ ! -e /etc/apt/sources.list ] ||
    awk '$1 == "deb" { for (i = 2; i <= NF && $i ~ /^\[|=|\]$/; i++); if ($(i+1) !~ /security/) { print $i "\t"; exit } }' /etc/apt/sources.list
}

# source_of_dqlite leaves the pinned source in $1, with our patches. The tarball comes from the pool of the machine's own
# archive and must have the pinned checksum; a copy that somebody has put into .deps/ does as well.
source_of_dqlite() {
  local tree=$1 tarball=$deps/dqlite_$dqlite_version.orig.tar.gz uri log=$deps/dqlite.log p
  if ! sha256sum --status -c - 2>/dev/null <<<"$dqlite_sha256  $tarball"; then
    IFS=$'\t' read -r uri _ < <(archive | head -n 1) || true
    [ -n "${uri:-}" ] || fail "no Debian archive is configured in /etc/apt: add one, or put ${tarball##*/} into .deps/, then try again."
    rm -f "$tarball"
    /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "${uri%/}/pool/main/d/dqlite/${tarball##*/}" "$tarball" "SHA256:$dqlite_sha256" >>"$log" 2>&1 ||
      fail "${tarball##*/} could not be fetched from the Debian archive, or is not the pinned one; apt's words are in .deps/dqlite.log. Put a copy into .deps/, then try again."
  fi
  rm -rf "$tree"; mkdir -p "$tree"
  tar -xzf "$tarball" -C "$tree" --strip-components=1
  for p in scripts/dqlite/*.patch; do
    patch -s -p1 -d "$tree" <"$p" >>"$log" 2>&1 || fail "$p does not apply to dqlite $dqlite_version; see .deps/dqlite.log."
  done
}

# dqlite KIND DIR FLAGS… builds dqlite into .deps/DIR, unless it is there already: its stamp covers all that went into it.
#   lib    the library; FLAGS… say how: for muster, or under AddressSanitizer for `make asan`
#   tests  dqlite's own unit tests, for `make test-engine`
dqlite() {
  local kind=$1 prefix=$deps/$2 work=$deps/$2.build log=$deps/dqlite.log stamp
  shift 2
  stamp=$(cat scripts/dqlite/pin scripts/dqlite/*.patch scripts/dqlite/compile.sh <(echo "$kind" "$@") | sha256sum)
  [ "$(cat "$prefix/stamp" 2>/dev/null)" != "$stamp" ] || return 0
  packages libsqlite3-dev patch
  mkdir -p "$deps"; : >"$log"
  say "building dqlite $dqlite_version ($kind)"
  source_of_dqlite "$work"
  scripts/dqlite/compile.sh "$work" "$prefix.new" "$kind" "$@" >>"$log" 2>&1 ||
    fail "dqlite did not build; the compiler's words are in .deps/dqlite.log."
  echo "$stamp" >"$prefix.new/stamp"
  rm -rf "$prefix" "$work"; mv "$prefix.new" "$prefix"
  [ "$kind" = lib ] || return 0
  rm -f muster muster-asan # Go's cache does not know what is in a C library
  go clean -testcache
}

# promtool checks the metrics and the alert rules. It is taken out of Debian's package, which is not installed: that would
# start a Prometheus.
get_promtool() {
  local bin=$deps/bin/promtool work=$deps/promtool log=$deps/apt.log
  [ ! -x "$bin" ] || return 0
  ! command -v promtool >/dev/null || return 0
  say "fetching promtool (Debian's package prometheus)"
  mkdir -p "$deps/bin"; rm -rf "$work"; mkdir -p "$work"
  (cd "$work" && { apt-get -q -o APT::Sandbox::User=root download prometheus || { as_root apt-get -q update && apt-get -q -o APT::Sandbox::User=root download prometheus; }; }) >>"$log" 2>&1 ||
    fail "the Debian package prometheus could not be fetched; apt's words are in .deps/apt.log."
  dpkg-deb -x "$work"/prometheus_*.deb "$work/tree" >>"$log" 2>&1 || fail "the Debian package prometheus could not be unpacked; see .deps/apt.log."
  mv "$work/tree/usr/bin/promtool" "$bin"
  rm -rf "$work"
}

# libraries_of_arm64 fetches what muster links from Debian's packages of that architecture, into .deps/arm64/root. This machine
# learns of no foreign architecture.
libraries_of_arm64() {
  local dir=$deps/arm64 p log=$deps/apt.log
  local apt=(apt-get -q -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root -o "Dir::State::lists=$deps/arm64/lists")
  [ ! -e "$dir/root/done" ] || return 0
  say "fetching libuv, lz4 and sqlite3 for arm64"
  rm -rf "$dir/root" "$dir/packages"; mkdir -p "$dir/root" "$dir/packages" "$dir/lists/partial"
  (cd "$dir/packages" && "${apt[@]}" update && "${apt[@]}" download libuv1-dev:arm64 liblz4-dev:arm64 libsqlite3-dev:arm64) >>"$log" 2>&1 || return 1
  for p in "$dir"/packages/*.deb; do dpkg-deb -x "$p" "$dir/root" || return 1; done
  touch "$dir/root/done"
}

packages gcc libc6-dev libuv1-dev liblz4-dev ca-certificates
case "${1:-build}" in
  build)  ;;
  test)   packages adduser sqlite3 age bird2 chromium openssl e2fsprogs btrfs-progs mount util-linux; get_promtool ;;
  bench)  packages sqlite3 age etcd-server etcd-client ;;
  asan)   dqlite lib dqlite-asan -O1 -g -fno-omit-frame-pointer -fsanitize=address; exit ;;
  engine) dqlite tests dqlite-tests -g -fsanitize=address; exit ;;
  arm64)
    packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
    libraries_of_arm64 || fail "the libraries for arm64 could not be fetched; apt's words are in .deps/apt.log."
    export CC=aarch64-linux-gnu-gcc
    dqlite lib arm64/dqlite -O2 "-I$deps/arm64/root/usr/include"
    exit ;;
  *)      fail "usage: scripts/setup.sh build|test|bench|asan|arm64|engine" ;;
esac
dqlite lib dqlite -O2
