//! What runs on a host beside `ctr`: plain sh, nothing installed. Knows no image.

/// The beginning of names that are only there while something is delivered.
pub const STAGING: &str = "vcbuild.local/staging:";

/// What scripts for containerd begin with: `c` is `ctr`, of which `cmd` is the command, quoted for `sh`; `snapshotter`
/// says which one CRI uses; `unstage` takes staging names away, with words for `ctr images rm`.
pub const COMMON: &str = r#"
c() { eval "$cmd \"\$@\""; }
snapshotter() {
  s=$(sed -n 's/^ *snapshotter *= *"\(.*\)".*/\1/p' /etc/containerd/config.toml 2>/dev/null | tail -n 1)
  echo "${s:-overlayfs}"
}
unstage() {
  for n in $(c images ls -q "name~=^vcbuild[.]local/staging:"); do
    # A `ctr` that is a script of somebody may say more.
    case $n in vcbuild.local/staging:*) c images rm "$@" "$n" >/dev/null ;; esac
  done
}
"#;

/// Goes on after `COMMON`. Arguments: the command `ctr` quoted for `sh`, the folder to lock, `try` or `wait`, and the
/// snapshotter if the host has been heard before. Says first, unless it has,
/// `hello MACHINE SNAPSHOTTER FREE BLOBS VERSION`, where FREE is bytes on the disk of images or `-` and BLOBS is `-` if
/// nothing can be placed there, then `ready`, and then reads lines:
/// - `list`, names to look at, an empty line: `== images`, `== content`, `== snapshots`, each followed by what
///   `ctr` lists, and `== end`; `list content` leaves out the first, `list names` the others;
/// - `import SIZE` and words for `ctr images import`, then so many bytes of an archive: `done`;
/// - `place DIGITS SIZE`, and what a blob is made of: `bytes SIZE` and so many bytes, `blob DIGITS FROM SIZE` for bytes of
///   a blob that is there, from the byte numbered FROM, which counts from 1, and at its end `.`: `done`;
/// - `label NAME LABEL`: `done`;
/// - `end` and staging names that go: `done`.
///
/// It says `fail STEP` and ends where something cannot be done. Whoever has the lock clears away what others have left:
/// with `try`, that is when lists are asked for, and where something cannot be done. Each `ctr` that is started costs as
/// much as some megabytes. A folder can be locked without a file that stays behind.
///
/// A blob is placed as an upload of its own that is begun, cut off before its first byte, and gone on with by one who has
/// all of it: in between its bytes are put where containerd keeps what came so far, of which it reads and verifies all
/// before it goes on. That saves their way through `ctr` and back, which costs five times as much as their digest.
/// An upload that is given up ends as the blob of no bytes.
pub const SCRIPT: &str = r#"
cmd=$1
pieces="iflag=skip_bytes,count_bytes,fullblock bs=256k"
store=/var/lib/containerd/io.containerd.content.v1.content
blobs=$store/blobs/sha256
placing=vcbuild.local/placing:
# Containerd 2's `ctr` asks one that is gone again and again.
ingest() { t=$1; shift; eval "timeout $t $cmd content ingest \"\$@\"" >/dev/null; }
upload() { ingest $((10 + $2 / 4000000)) --expected-digest "sha256:$1" --expected-size "$2" "$placing$1"; }
begun() { grep -lsF "/$placing$1" "$store"/ingest/*/ref; }
clear() {
  unstage --sync
  for n in $(begun); do
    # `:` would end the shell where that cannot be written.
    true >"${n%ref}data" && ingest 10 "$placing$(sed "s/.*://" "$n")" <"${n%ref}data"
  done
}
fail() { echo "fail $1"; [ -z "$alone" ] || clear; exit 1; }
alone=
mode=$3
s=$4
locks=
[ ! -r "$2" ] || ! command -v flock >/dev/null || locks=1
if [ -z "$s" ]; then
  version=$(c --version) || { echo "fail ctr"; exit 1; }
  s=$(snapshotter)
  free=-
  [ ! -d /var/lib/containerd ] || free=$(df -kP /var/lib/containerd | awk 'NR == 2 { print $4 * 1024 }')
  reads=-
  # What another may place at the same time, or what `head` takes more of than it gives, cannot be placed.
  [ ! -w "$blobs" ] || [ -z "$locks" ] || ! dd if=/dev/null $pieces count=0 2>/dev/null ||
    [ "$(echo ab | { head -c 1 >/dev/null; cat; })" != b ] || reads=blobs
  echo "hello $(uname -m) $s ${free:--} $reads ${version##* }"
fi
if [ -n "$locks" ]; then
  exec 9<"$2"
  if flock -n 9; then alone=1
  elif [ "$3" = wait ]; then echo waits; flock -w 3600 9 || fail lock; alone=1
  fi
fi
echo ready
made() {
  while IFS=" " read -r op a b n; do
    case $op in
    bytes) timeout 7200 head -c "$a" || return ;;
    blob)
      # What is short would put other bytes in the place of the rest.
      [ "$(stat -c %s -- "$blobs/$a")" -ge $((b + n - 1)) ] || return
      dd if="$blobs/$a" $pieces skip=$((b - 1)) count="$n" 2>/dev/null || return
      ;;
    .) return ;;
    esac
  done
}
while IFS=" " read -r op a b; do
  case $op in
  list)
    set --
    while IFS= read -r n && [ -n "$n" ]; do set -- "$@" "name==\"$n\""; done
    if [ "$a" != content ]; then
      echo "== images"
      n=$(c images ls "name~=^vcbuild[.]local/staging:" "$@") || fail list
      printf "%s\n" "$n"
      [ "$alone$mode" != 1try ] || case "$n$(begun)" in *vcbuild.local/staging:*|*/ref) clear ;; esac
    fi
    if [ "$a" != names ]; then
      echo "== content"
      c content ls || fail list
      echo "== snapshots"
      c snapshots --snapshotter "$s" ls || fail list
    fi
    echo "== end"
    ;;
  import)
    timeout 7200 head -c "$a" | c images import --snapshotter "$s" $b - >/dev/null || fail import
    echo done
    ;;
  place)
    digits=$a size=$b
    # Somebody else may have brought it meanwhile.
    if upload "$digits" "$size" </dev/null 2>/dev/null; then made >/dev/null || fail import
    else
      # Where containerd has another root, nobody would find what was begun.
      f=$(begun "$digits") || { ingest 10 "$placing$digits" </dev/null; fail import; }
      f=${f%ref}data
      made >"$f" && upload "$digits" "$size" <"$f" || fail import
    fi
    echo done
    ;;
  label)
    c images label "$a" "$b" >/dev/null || fail label
    echo done
    ;;
  sync)
    if [ -r /var/lib/containerd ]; then sync -f /var/lib/containerd; else sync; fi || fail sync
    echo done
    ;;
  end)
    [ -z "$a" ] || c images rm $a $b >/dev/null
    echo done
    exit 0
    ;;
  esac
done
exit 1
"#;
