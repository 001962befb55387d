#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Where a daemon works: links that somebody planted in its storage root or its store are not followed,
# a store or a root that is not there is not made up, and places that lie in one another are refused.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

[ -z "$TEST_PLAIN" ] || { note "a plain directory has no daemon"; exit 0; }

mkdir -p "$WORK/victim/sub"
echo precious >"$WORK/victim/file"
echo precious >"$WORK/victim/sub/file"
echo precious >"$WORK/victim.file"
victims() { find "$WORK/victim" "$WORK/victim.file" -printf '%p %y %m %s\n' | sort; cat "$WORK/victim/file" "$WORK/victim/sub/file" "$WORK/victim.file"; }
before=$(victims)
untouched() { # WHAT
    assert_equal "$before" "$(victims)" "what lies behind the link ($1)"
}

step "links in the storage root"
volume_new v file
volume_mount v create,checkpoint_interval=0
echo one >"${V_MNT[v]}/file"
volume_checkpoint v
volume_unmount v
root=${V_ROOT[v]}
place=$(cd "$root/tenants/tenant" && find . -name lock -printf '%h\n' | sed 's#^\./##')
wal=$(cd "$root/tenants/tenant" && find . -name wal -printf '%h\n' | sed 's#^\./##')
for link in manifest tenants hot_cache checkpoint_scratch tenants/tenant "tenants/tenant/$place" \
    "tenants/tenant/$wal" "tenants/tenant/$wal/wal" hot_cache/1 checkpoint_scratch/1; do
    [ -d "$root/$link" ] || fail "$link is no directory of a storage root any more"
    mv "$root/$link" "$WORK/kept"
    ln -s "$WORK/victim" "$root/$link"
    volume_mount_refused v "" "is a symbolic link"
    untouched "$link"
    rm "$root/$link"
    mv "$WORK/kept" "$root/$link"
done
for link in "tenants/tenant/$place/lock" manifest/data.mdb manifest/lock.mdb "tenants/tenant/$wal/wal/mark"; do
    mv "$root/$link" "$WORK/kept"
    ln -s "$WORK/victim.file" "$root/$link"
    volume_mount_refused v "" "cannot|damaged"
    untouched "$link"
    rm "$root/$link"
    mv "$WORK/kept" "$root/$link"
done
ln -s "$WORK/victim" "$root/checkpoint_scratch/1/planted"
ln -s "$WORK/victim.file" "$root/hot_cache/1/planted.blob"
volume_mount v
untouched "inside scratch and hot_cache"
volume_unmount v

step "a storage root that others may write to, or own"
chmod g+w "$root"
volume_mount_refused v "" "may be written by other users"
chmod g-w "$root"
ln -s "$root" "$WORK/link.root"
V_ROOT[v]=$WORK/link.root
volume_mount_refused v "" "is a symbolic link"
V_ROOT[v]=$root
if [ "$(id -u)" = 0 ]; then
    chown nobody "$root"
    volume_mount_refused v "" "belongs to another user"
    chown nobody "$root/hot_cache"
    chown root "$root"
    volume_mount_refused v "" "hot_cache belongs to another user"
    chown root "$root/hot_cache"
fi
volume_mount v
assert_equal one "$(cat "${V_MNT[v]}/file")" "the file"
volume_unmount v

step "a storage root whose name leads elsewhere while it is mounted"
volume_new o file
mkdir "$WORK/above"
V_ROOT[o]=$WORK/above/root
volume_mount o create,checkpoint_interval=0
echo one >"${V_MNT[o]}/file"
volume_checkpoint o
mv "$WORK/above/root" "$WORK/above/moved"
mkdir "$WORK/above/root"
wal=$(cd "$WORK/above/moved/tenants/tenant" && find . -name wal -printf '%h\n' | sed 's#^\./##')
mkdir -p "$WORK/above/root/tenants/tenant/$wal"
for link in manifest "tenants/tenant/$wal/wal" hot_cache checkpoint_scratch views quota; do
    ln -s "$WORK/victim" "$WORK/above/root/$link"
done
# The daemon notices it within a second, or when it folds. Until then it needs new segments of the log.
head -c 100000000 /dev/zero | dd "of=${V_MNT[o]}/large" bs=1M iflag=fullblock conv=fsync status=none || true
timeout 20 "$CKPTCTL" checkpoint -q "${V_MNT[o]}" >"$WORK/out" 2>&1 || true
untouched "the name of a root"
volume_kill9 o
untouched "the name of a root"
rm -r "$WORK/above/root"
mv "$WORK/above/moved" "$WORK/above/root"
volume_mount o
assert_equal one "$(cat "${V_MNT[o]}/file")" "the file"
volume_unmount o

step "a store whose name leads elsewhere while it is used"
volume_mount o checkpoint_interval=0
mv "${V_DIRECTORY[o]}" "$WORK/moved.store"
ln -s "$WORK/victim" "${V_DIRECTORY[o]}"
echo two >"${V_MNT[o]}/file"
if timeout 5 "$CKPTCTL" checkpoint "${V_MNT[o]}" >"$WORK/out" 2>&1; then
    fail "a checkpoint went to another store"
fi
untouched "the name of a store"
rm "${V_DIRECTORY[o]}"
mv "$WORK/moved.store" "${V_DIRECTORY[o]}"
volume_checkpoint o
volume_unmount o

step "links in the store"
store=${V_DIRECTORY[v]}
mv "$store/manifests" "$WORK/manifests"
ln -s "$WORK/manifests" "$store/manifests"
volume_other_root w v
volume_mount_refused w "" "holds no volume|cannot"
rm "$store/manifests"
mv "$WORK/manifests" "$store/manifests"
volume_mount v checkpoint_interval=0
rm -rf "$store/checkpoints" "$store/.tmp"
ln -s "$WORK/victim" "$store/checkpoints"
echo two >"${V_MNT[v]}/file"
if timeout 20 "$CKPTCTL" checkpoint "${V_MNT[v]}" >"$WORK/out" 2>&1; then
    fail "a checkpoint went through a link"
fi
untouched "checkpoints"
rm "$store/checkpoints"
volume_kill9 v

step "what is missing is not made up"
volume_new n file
rmdir "${V_DIRECTORY[n]}"
"$CKPTCTL" create "${V_SOURCE[n]}" >"$WORK/out" 2>&1 && fail "create made the store's directory"
grep -q "does not exist" "$WORK/out" || fail "create does not say what is missing: $(cat "$WORK/out")"
volume_mount_refused n create "does not exist"
[ ! -e "${V_DIRECTORY[n]}" ] || fail "a mount made the store's directory"
mkdir "${V_DIRECTORY[n]}"
mkdir "$WORK/deep"
status=0
"$CKPTFS" -o "root=$WORK/deep/a/b,create" "${V_SOURCE[n]}" "${V_MNT[n]}" >"$WORK/out" 2>&1 || status=$?
assert_equal 2 $status "a root whose parent is missing"
grep -q "the directory above it is missing" "$WORK/out" || fail "$(cat "$WORK/out")"
[ ! -e "$WORK/deep/a" ] || fail "the parents of the root were made"
"$CKPTFS" -o "root=$WORK/deep/a,create,checkpoint_interval=0" "${V_SOURCE[n]}" "${V_MNT[n]}"
"$CKPTCTL" unmount -q "${V_MNT[n]}"

step "places that lie in one another"
overlap() { # ROOT STORE MOUNTPOINT
    local status=0
    "$CKPTFS" -o "root=$1,create" "file://$2/t" "$3" >"$WORK/out" 2>&1 || status=$?
    assert_equal 2 $status "root $1, store $2, mountpoint $3"
    grep -q "give directories of their own" "$WORK/out" || fail "root $1, store $2, mountpoint $3: $(cat "$WORK/out")"
}
mkdir -p "$WORK"/x/{root,store,mnt}/sub "$WORK/x/bound" "$WORK/x/free"
ln -s "$WORK/x/mnt" "$WORK/x/link"
x=$WORK/x
overlap "$x/mnt/sub" "$x/store" "$x/mnt"
overlap "$x/mnt/new" "$x/store" "$x/mnt"
overlap "$x/root" "$x/mnt/sub" "$x/mnt"
overlap "$x/root" "$x/root/sub" "$x/mnt"
overlap "$x/store/sub" "$x/store" "$x/mnt"
overlap "$x/root" "$x/store" "$x/root/sub"
overlap "$x/root" "$x/store" "$x/store/sub"
overlap "$x/root" "$x/root" "$x/mnt"
overlap "$x/mnt" "$x/store" "$x/mnt"
overlap "$x/root" "$x/link/sub" "$x/mnt"
if [ "$(id -u)" = 0 ]; then
    mount --bind "$x/mnt/sub" "$x/bound"
    overlap "$x/root" "$x/bound" "$x/mnt"
    umount "$x/bound"
fi
