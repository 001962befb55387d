#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that are missing for what is named:
#     install-packages.sh build       to compile ckptfs
#     install-packages.sh demo        what contrib/quickstart.sh runs on it
#     install-packages.sh test        what contrib/run-tests.sh needs besides
#     install-packages.sh bench       what make bench can use besides build: databases, other file
#                                     systems to compare with
# Several may be named. Does nothing, and needs no network, when everything is there.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

build="build-essential autoconf automake pkg-config libfuse3-dev fuse3 liblmdb-dev
    libcurl4-openssl-dev libssl-dev liblz4-dev libjansson-dev libexpat1-dev ca-certificates"
demo="sqlite3 postgresql postgresql-contrib jq procps util-linux"
test="check lmdb-utils libsqlite3-dev librocksdb-dev rocksdb-tools ceph-mon ceph-osd radosgw
    ceph-common curl attr acl binutils clang-14 clang-format-14 shellcheck cppcheck valgrind fio e2fsprogs kmod
    xz-utils gdb mariadb-server-core mariadb-client-core redis-server redis-tools etcd-server
    etcd-client git rsync"
bench="python3 fio sqlite3 libsqlite3-dev postgresql postgresql-contrib rocksdb-tools s3fs rclone
    s3backer e2fsprogs ceph-mon ceph-osd radosgw ceph-common curl util-linux valgrind strace"
# Who has these from somewhere else keeps them: Debian's would not go together with them.
command -v node >/dev/null || test="$test nodejs"
command -v npm >/dev/null || test="$test npm"

wanted=
for group in "$@"; do
    case $group in
        build) wanted="$wanted $build" ;;
        demo) wanted="$wanted $demo" ;;
        test) wanted="$wanted $test" ;;
        bench) wanted="$wanted $bench" ;;
        *)
            echo "usage: install-packages.sh build|demo|test|bench..." >&2
            exit 2
            ;;
    esac
done

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in $wanted; do
    is_installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "missing packages: ${missing[*]}; install them as root" >&2
        exit 1
    }
    as_root=(sudo -E)
fi

# Nobody here needs the database cluster that the PostgreSQL package would make and start.
if [[ " ${missing[*]} " == *" postgresql"* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    "${as_root[@]}" mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" |
        "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi

log=$(mktemp)
# The tests start servers of their own; those of the packages stay down.
policy=/usr/sbin/policy-rc.d
our_policy=
# shellcheck disable=SC2317 # a trap calls it
finish() {
    rm -f "$log"
    [ -z "$our_policy" ] || "${as_root[@]}" rm -f "$policy"
}
trap finish EXIT
if [ ! -e "$policy" ]; then
    our_policy=1
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi
apt() { # apt-get, waiting for others that hold its lock
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@" >>"$log" 2>&1 </dev/null
}

echo "installing ${#missing[@]} packages: ${missing[*]}"
apt install --no-install-recommends "${missing[@]}" ||
    { apt update && apt install --no-install-recommends "${missing[@]}"; } || :

# What counts is that they are there, not what a service's script thought of this machine.
failed=()
for package in "${missing[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null |
        grep -qE '^(installed|half-configured|unpacked|triggers-.*)$' || failed+=("$package")
done
if [ ${#failed[@]} -gt 0 ]; then
    tail -n 20 "$log" >&2
    echo "could not install: ${failed[*]}" >&2
    exit 1
fi
