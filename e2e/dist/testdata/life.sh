#!/bin/bash
# The life of the Debian package, in a copy of this machine's system that nothing outside sees: life.sh FIRST SECOND.
set -euo pipefail
step() { echo "== $*"; }
fail() { echo "FAIL: $*"; exit 1; }
mode() { stat -c '%a %U' "$1"; }
member=
trap '[ -z "$member" ] || kill -KILL "$member" 2>/dev/null || true' EXIT

start() {
  setpriv --reuid muster --regid muster --clear-groups /usr/bin/muster serve --data /var/lib/muster \
    --api 127.0.0.1:25000 --raft 127.0.0.1:27000 2>/tmp/member.log &
  member=$!
  for _ in $(seq 300); do
    muster status --data /var/lib/muster 2>/dev/null | grep -q yes && return
    kill -0 "$member" || { cat /tmp/member.log; fail "the member has ended"; }
    sleep 0.1
  done
  cat /tmp/member.log
  fail "the member does not get ready"
}

stop() { kill "$member"; wait "$member" || fail "the member ends with status $?"; member=; }

ip link set lo up

step install
dpkg -i "$1" >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail "it does not install"; }
[ "$(mode /var/lib/muster)" = "700 muster" ] || fail "/var/lib/muster is $(mode /var/lib/muster)"
[ "$(mode /etc/muster/muster.env)" = "600 root" ] || fail "/etc/muster/muster.env is $(mode /etc/muster/muster.env)"
getent passwd muster | grep -q '/var/lib/muster:/usr/sbin/nologin$' || fail "the user is $(getent passwd muster)"
grep -q '^ExecStart=/usr/bin/muster ' /usr/lib/systemd/system/muster.service || fail "the unit starts another program"
grep -q '^DynamicUser=no' /usr/lib/systemd/system/muster.service || fail "the unit has another user"
for file in /usr/share/man/man1/muster-member-drain.1.gz /usr/share/bash-completion/completions/muster \
  /usr/share/zsh/vendor-completions/_muster /usr/share/fish/vendor_completions.d/muster.fish \
  /usr/share/doc/muster/copyright /usr/share/doc/muster/changelog.gz; do
  [ -s "$file" ] || fail "$file is missing"
done
dpkg --verify muster || fail "its files are not those of the package"

step start
start
echo "kept" | muster secret put across.upgrade --data /var/lib/muster
echo 'MUSTER_ARGS=--name first' >/etc/muster/muster.env

step upgrade
dpkg -i "$2" >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail "it does not upgrade"; }
kill -0 "$member" || fail "the upgrade has ended the running member"
stop
start
[ "$(muster secret get across.upgrade --data /var/lib/muster)" = kept ] || fail "the secret is gone"
[ "$(cat /etc/muster/muster.env)" = 'MUSTER_ARGS=--name first' ] || fail "the upgrade has changed muster.env"
stop

step remove
dpkg -r muster >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail "it cannot be removed"; }
[ ! -e /usr/bin/muster ] || fail "the program is still there"
[ -e /var/lib/muster/muster.db ] || fail "the state is gone"

step purge
dpkg -P muster >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail "it cannot be purged"; }
[ ! -e /var/lib/muster ] && [ ! -e /etc/muster ] || fail "the state is still there"
! getent passwd muster || fail "the user is still there"
step done
