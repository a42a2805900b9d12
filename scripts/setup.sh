#!/usr/bin/env bash
# Sets up everything that building and testing muster needs, on Debian 12 or newer, as root or with sudo.
# Safe to repeat: what is already there is left alone, and a second run takes well under a second.
#
#   scripts/setup.sh build   C compiler, libuv, lz4 and libdqlite >= 1.18.3 (the distribution's, or built from
#                            Debian's own source package into .deps/)
#   scripts/setup.sh test    the above and the programs the tests drive (sqlite3, age, bird2, chromium, ext4's tools; promtool into .deps/bin)
#   scripts/setup.sh bench   the above and the yardstick (etcd)
set -euo pipefail
cd "$(dirname "$0")/.."

need_dqlite=1.18.3
deps=$PWD/.deps
prefix=$deps/dqlite

say()  { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v go >/dev/null || fail "Go is not on the PATH: install Go 1.26 or newer, then try again."
command -v apt-get >/dev/null || fail "apt-get is not here: this script knows Debian 12 or newer; on other systems install libdqlite >= $need_dqlite (static), libuv and lz4 by hand and point CGO_CFLAGS and CGO_LDFLAGS at them."

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

build_dqlite() {
  packages autoconf automake libtool pkg-config make libsqlite3-dev dpkg-dev
  local uri keyring work=$deps/build log=$deps/dqlite.log src
  IFS=$'\t' read -r uri keyring < <(archive | head -n 1) || true
  [ -n "${uri:-}" ] || fail "no Debian archive is configured in /etc/apt: add one, then try again."
  rm -rf "$work"; mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/src"
  printf 'Types: deb-src\nURIs: %s\nSuites: forky\nComponents: main\n%s' "$uri" "${keyring:+Signed-By: $keyring
}" >"$work/forky.sources"
  # A private apt state: the machine's own sources stay as they are, signatures are checked as always.
  local apt=(-o "Dir::Etc::sourcelist=$work/forky.sources" -o Dir::Etc::sourceparts=/dev/null
             -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  say "building libdqlite from Debian's source package (about 20 s)"
  apt-get -q "${apt[@]}" update >"$log" 2>&1 || fail "the Debian source index could not be fetched (no network?); apt's words are in .deps/dqlite.log."
  (cd "$work/src" && apt-get -q "${apt[@]}" source --download-only dqlite) >>"$log" 2>&1 ||
    fail "the dqlite source package could not be fetched; apt's words are in .deps/dqlite.log."
  (cd "$work/src" && dpkg-source --no-check -x ./*.dsc tree) >>"$log" 2>&1 || fail "the dqlite source package could not be unpacked; see .deps/dqlite.log."
  src=$work/src/tree
  (cd "$src" && autoreconf -i && ./configure --disable-shared --with-static-deps --disable-backtrace --prefix="$prefix.new" &&
    make -j"$(nproc)" libdqlite.la && make install-libLTLIBRARIES install-data) >>"$log" 2>&1 ||
    fail "libdqlite did not build; the compiler's words are in .deps/dqlite.log."
  sed -n 's/^PACKAGE_VERSION=.\(.*\).$/\1/p' "$src/configure" | head -n 1 >"$prefix.new/version"
  dpkg --compare-versions "$(cat "$prefix.new/version")" ge "$need_dqlite" ||
    fail "Debian's source package holds libdqlite $(cat "$prefix.new/version"), older than $need_dqlite."
  rm -rf "$prefix" "$work"; mv "$prefix.new" "$prefix"
  say "libdqlite $(cat "$prefix/version") is in .deps/dqlite"
}

dqlite() {
  [ ! -e "$prefix/lib/libdqlite.a" ] || return 0
  local dir
  if command -v pkg-config >/dev/null && pkg-config --atleast-version="$need_dqlite" dqlite 2>/dev/null; then
    dir=$(pkg-config --variable=libdir dqlite)
    [ ! -e "$dir/libdqlite.a" ] || return 0
  fi
  build_dqlite
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

packages gcc libc6-dev libuv1-dev liblz4-dev ca-certificates
dqlite
case "${1:-build}" in
  build) ;;
  test)  packages sqlite3 age bird2 chromium e2fsprogs mount util-linux; get_promtool ;;
  bench) packages sqlite3 age etcd-server etcd-client ;;
  *)     fail "usage: scripts/setup.sh build|test|bench" ;;
esac
