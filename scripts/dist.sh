#!/usr/bin/env bash
# Makes what is handed out: for each architecture an archive and a Debian package, an SBOM, and their checksums. The same
# commit makes the same bytes, whatever the directory and the time (`make dist-test` builds twice and compares).
#
#   scripts/dist.sh OUT [ARCH…]     ARCH is amd64 or arm64; without one both, arm64 if a cross compiler installs
#   scripts/dist.sh deb OUT BINARY  only the Debian package of this machine, of a binary that is there; COMPRESSION=none
#                                   saves the minute that xz takes
#   scripts/dist.sh binary OUT ARCH only the binary
set -euo pipefail
cd "$(dirname "$0")/.."

: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 1)}"
: "${VERSION:=$(git describe --tags --always --dirty 2>/dev/null || echo dev)}"
: "${COMMIT:=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}"
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
umask 022
deps=$PWD/.deps
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf 'dist: %s\n' "$*" >&2; }

# deb_version is what dpkg orders by: a tag as it is, anything else as an early version with the commit's time.
deb_version() {
  case $VERSION in
    v[0-9]*) echo "${VERSION#v}" | tr - '~' ;;
    [0-9]*.*) echo "$VERSION" | tr - '~' ;;
    *) echo "0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)+g$COMMIT" ;;
  esac
}

# files DIR BINARY puts what belongs to an installation into DIR, under /usr. The pages and completions come from the
# commands of this source, run on this machine.
files() {
  local dir=$1 unit
  install -Dm755 "$2" "$dir/usr/bin/muster"
  install -d "$dir/usr/share/man/man1" "$dir/usr/share/doc/muster" "$dir/usr/lib/systemd/system"
  [ -d "$work/man" ] || go run -ldflags "-X muster/cli.Version=$VERSION" ./scripts/man "$work/man"
  install -m644 "$work"/man/*.1 "$dir/usr/share/man/man1"
  gzip -9n "$dir"/usr/share/man/man1/*.1
  install -Dm644 "$work/completions/bash" "$dir/usr/share/bash-completion/completions/muster"
  install -Dm644 "$work/completions/zsh" "$dir/usr/share/zsh/vendor-completions/_muster"
  install -Dm644 "$work/completions/fish" "$dir/usr/share/fish/vendor_completions.d/muster.fish"
  install -m644 NOTICE "$dir/usr/share/doc/muster/copyright"
  gzip -9nc CHANGELOG.md >"$dir/usr/share/doc/muster/changelog.gz"
  for unit in muster.service muster-upgrade.service; do
    [ ! -e "deploy/$unit" ] || sed 's|/usr/local/bin/muster|/usr/bin/muster|; s|^DynamicUser=yes$|DynamicUser=no|' \
      "deploy/$unit" >"$dir/usr/lib/systemd/system/$unit"
  done
  find "$dir" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# completions BINARY has a binary that runs here write the completions.
completions() {
  local shell
  mkdir -p "$work/completions"
  for shell in bash zsh fish; do "$1" completion $shell >"$work/completions/$shell"; done
}

# deb DIR ARCH OUT makes the Debian package of the files in DIR.
deb() {
  local dir=$1 arch=$2 name
  name=muster_$(deb_version)_$arch.deb
  install -d "$dir/DEBIAN"
  install -m755 deploy/debian/{postinst,prerm,postrm} "$dir/DEBIAN"
  sed "s/@VERSION@/$(deb_version)/; s/@ARCH@/$arch/; s/@SIZE@/$(du -sk --apparent-size "$dir/usr" | cut -f1)/" \
    deploy/debian/control >"$dir/DEBIAN/control"
  (cd "$dir" && find usr -type f -printf '%P\0' | sort -z | sed -z 's|^|usr/|' | xargs -0 md5sum >DEBIAN/md5sums)
  find "$dir" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group "-Z${COMPRESSION:-xz}" --build "$dir" "$3/$name" >/dev/null
  say "$name"
}

# archive DIR ARCH OUT makes the archive.
archive() {
  local name=muster_${VERSION}_linux_$2
  tar -C "$1" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --exclude=./DEBIAN \
    --transform "s|^\.|$name|" -cf - . | gzip -9n >"$3/$name.tar.gz"
  say "$name.tar.gz"
}

# binary ARCH OUT builds the static binary.
binary() {
  local root=$deps/dqlite search=""
  export CC=gcc
  if [ "$1" != "$(go env GOHOSTARCH)" ]; then
    CC=aarch64-linux-gnu-gcc root=$deps/arm64/dqlite
    search="-I$deps/arm64/root/usr/include"
    local libs="-L$deps/arm64/root/usr/lib/aarch64-linux-gnu"
  fi
  CGO_ENABLED=1 GOOS=linux GOARCH=$1 \
    CGO_CFLAGS="-O2 -I$root/include $search" \
    CGO_LDFLAGS="-L$root/lib ${libs:-} -ldqlite -l:libuv_a.a -llz4 -lpthread -lm -ldl" \
    go build -buildvcs=false -o "$2" -ldflags \
    "-linkmode external -extldflags \"-static -Wl,--no-warnings -Wl,--build-id=none\" -s -w -buildid= -X muster/cli.Version=$VERSION -X muster/cli.Commit=$COMMIT" .
}

one() {
  local arch=$1 out=$2
  binary "$arch" "$work/muster-$arch"
  [ "$arch" != "$(go env GOHOSTARCH)" ] || completions "$work/muster-$arch"
  files "$work/$arch" "$work/muster-$arch"
  archive "$work/$arch" "$arch" "$out"
  deb "$work/$arch" "$arch" "$out"
}

export CGO_ENABLED=1 CGO_CFLAGS="-O2 -I$deps/dqlite/include" GOFLAGS="-tags=netgo,osusergo -trimpath" \
  CGO_LDFLAGS="-L$deps/dqlite/lib -ldqlite -l:libuv_a.a -llz4 -lpthread -lm -ldl"

if [ "${1:-}" = deb ]; then
  mkdir -p "$2"
  completions "$3"
  files "$work/tree" "$3"
  deb "$work/tree" "$(go env GOHOSTARCH)" "$2"
  exit
fi

if [ "${1:-}" = binary ]; then
  binary "$3" "$2"
  exit
fi

out=${1:?where to}
shift
mkdir -p "$out"
if [ $# = 0 ]; then
  set -- amd64
  if scripts/setup.sh arm64; then set -- amd64 arm64; else say "no cross compiler for arm64 can be had: amd64 alone"; fi
fi
host=$(go env GOHOSTARCH)
for arch in "$host" "$@"; do # this machine's first: its binary writes the completions
  [ ! -e "$work/muster-$arch" ] || continue
  one "$arch" "$out"
done
go run ./scripts/notice -sbom "$VERSION" "$out/muster_$VERSION.cdx.json"
(cd "$out" && sha256sum -- muster_* >SHA256SUMS)
say "checksums in $out/SHA256SUMS"
