//! What runs on a host to look at files and to place them: plain sh, coreutils and findutils, nothing
//! installed; zstd if it is there. Knows no connection.

/// A partial file of at least this size is kept when the connection is cut, and gone on with.
pub const RESUMED: u64 = 4 << 20;

/// Reads lines `SIZE PATH` up to an empty line (`-` is any size). The arguments are folders to look into. Prints
/// sections, each with a line `==` at its end:
/// - `zstd`, if it is there;
/// - for each path that is there `KIND MODE SIZE UID GID USER GROUP PATH`;
/// - for each link its path and its target, a line each;
/// - `SHA-256  PATH` for the regular files of the right size;
/// - for each folder `nothing`, `other` or `folder REAL-PATH`, then `mount PATH` for what is mounted in it, from there and
///   written as in `/proc/self/mountinfo`, then `KIND PATH` for all that is in it, where a line feed in a path is written as
///   a zero byte.
pub const ASK: &str = r#"
command -v zstd >/dev/null && echo zstd
echo ==
list=$(sed '/^$/q')
look() { xargs -r -d "\n" sh -c 'f=$1; shift; find "$@" -maxdepth 0 -printf "$f"' vcbuild "$1" 2>/dev/null; }
stats=$([ -z "$list" ] || printf "%s\n" "$list" | cut -d " " -f 2- | look '%y %m %s %U %G %u %g %p\n')
printf "%s\n" "$stats"
echo ==
printf "%s\n" "$stats" | sed -n 's/^l \([^ ]* \)\{6\}//p' | look '%p\0%l\0' | tr '\n\0' '\0\n'
echo ==
{ printf "%s\n" "$list"; echo; printf "%s\n" "$stats"; } | awk '
  $0 == "" { second = 1; next }
  !second { at = index($0, " "); want[substr($0, at + 1)] = substr($0, 1, at - 1); next }
  {
    path = $0
    for (i = 0; i < 7; i++) path = substr(path, index(path, " ") + 1)
    if ($1 == "f" && (want[path] == "-" || want[path] == $3)) print path
  }' | xargs -r -d "\n" sha256sum -b --
echo ==
for folder; do
  if [ -d "$folder" ] && [ ! -L "$folder" ]; then
    real=$(cd -P -- "$folder" && pwd -P)
    printf 'folder %s\n' "$real"
    root=$(printf %s "$real" | sed 's/\\/\\134/g; s/ /\\040/g; s/\t/\\011/g') awk '
      index($5, ENVIRON["root"] "/") == 1 { print "mount " substr($5, length(ENVIRON["root"]) + 2) }' /proc/self/mountinfo
    find "$folder" -xdev -mindepth 1 -name '.vcbuild-*.part' -prune -o -mindepth 1 -printf '%y %p\0' | tr '\n\0' '\0\n'
  elif [ -e "$folder" ] || [ -L "$folder" ]; then echo other
  else echo nothing
  fi
  echo ==
done
exit 0
"#;

/// Reads lines, each of them followed by more where that is said:
/// - `put SIZE MODE OWNER DIGEST WAY` and a line with the path: answers `have N`, then takes SIZE less N bytes, and answers
///   `done` when the file is placed. By the way `plain` they come as they are; `packed` in runs, see `unpack`; `secret` is
///   as `plain`, but nothing that is partial stays, nor is it called by its digest;
/// - `few SIZE MODE DIGEST` and a line with the path, then the bytes: a small file of the same folder as those since
///   the last `placed OWNER`, which places them all and answers `done`;
/// - `set MODE OWNER` and a line with the path: mode and owner; answers `done`;
/// - `link OWNER` and lines with the path and the target: a link; answers `done`;
/// - `folder OWNER` and a line with the path: a folder, if there is none; answers `done`;
/// - `gone KIND` and lines with a folder's path without links and the path of something in it: it is removed, if no link
///   is on the way; answers `done`;
/// - `end`: answers `done` when all of it is on the disk.
///
/// It answers `fail STEP` and ends where something cannot be done. A folder is locked while something is placed in it, so
/// that any partial file there is a leftover.
pub const PLACE: &str = r#"
cur=
part=
RESUMED=$1
NL='
'
fail() { echo "fail $1"; [ -z "$part" ] || rm -rf -- "$part"; exit 1; }
leave() {
  [ -n "$cur" ] || return 0
  part=
  rm -rf -- "$cur"/.vcbuild-*.part
  sync -- "$cur" || fail sync
  exec 9<&-
  cur=
}
enter() {
  dir=${1%/*}
  dir=${dir:-/}
  [ "$dir" != "$cur" ] || return 0
  leave
  mkdir -p -- "$dir" || fail mkdir
  exec 9<"$dir" || fail open
  if command -v flock >/dev/null; then flock -n 9 || { echo waits; flock -w 3600 9 || fail lock; }; fi
  cur=$dir
}
dress() {
  [ "$2" = - ] || chown -h -- "$2" "$3" || fail owner
  [ "$1" = - ] || chmod -- "$1" "$3" || fail mode
}
frames() { while read -r n && [ "$n" -gt 0 ]; do head -c "$n" || exit 1; done; }
# Runs: `plain N` and so many bytes; `zstd`, then pieces of frames, each `N` and so many bytes, up to `0`; `end`.
unpack() {
  while read -r kind n; do
    case $kind in
    plain) head -c "$n" || return 1 ;;
    zstd) frames | zstd -dqc || return 1 ;;
    end) return 0 ;;
    *) return 1 ;;
    esac
  done
  return 1
}
each() { printf "%s" "$1" | (cd "$part" && xargs -r -d "\n" "$2" $3 --); }
sums=
names=
modes=
while IFS=" " read -r op a b c d e; do
  case $op in
  put)
    IFS= read -r path
    enter "$path"
    part=$dir/.vcbuild-$d.part
    have=0
    if [ "$e" = secret ]; then
      part=$dir/.vcbuild-secret.part
      rm -rf -- "$part" || fail remove
    elif [ -f "$part" ] && [ ! -L "$part" ] && [ -O "$part" ]; then
      have=$(stat -c %s -- "$part") || fail look
      [ "$have" -lt "$a" ] || { rm -f -- "$part"; have=0; }
    else
      rm -rf -- "$part" || fail remove
    fi
    echo "have $have"
    if [ "$e" = packed ]; then
      # What does not come to its end was cut off, unless more comes.
      (umask 077; unpack >>"$part") || ! read -r n || fail write
    else
      (umask 077; head -c $((a - have)) >>"$part") || fail write
    fi
    size=$(stat -c %s -- "$part") || fail look
    if [ "$size" -ne "$a" ]; then
      { [ "$size" -ge "$RESUMED" ] && [ "$e" != secret ]; } || rm -f -- "$part"
      exit 1
    fi
    hash=$(sha256sum -b <"$part") || fail read
    [ "${hash%% *}" = "$d" ] || fail digest
    dress "$b" "$c" "$part"
    sync -- "$part" || fail sync
    [ ! -d "$path" ] || [ -L "$path" ] || fail folder
    mv -fT -- "$part" "$path" || fail rename
    part=
    echo done
    ;;
  few)
    IFS= read -r path
    if [ -z "$names" ]; then
      enter "$path"
      part=$dir/.vcbuild-few.part
      rm -rf -- "$part" && (umask 077; mkdir -- "$part") || fail mkdir
    fi
    name=${path##*/}
    [ ! -d "$path" ] || [ -L "$path" ] || fail folder
    umask 077
    head -c "$a" >"$part/$name" || fail write
    umask 022
    names=$names$name$NL
    modes="$modes$b $name$NL"
    sums="$sums$c *$name$NL"
    ;;
  placed)
    (cd "$part" && printf "%s" "$sums" | sha256sum --status -c -) || fail digest
    [ "$a" = - ] || each "$names" chown "-h $a" || fail owner
    for mode in $(printf "%s" "$modes" | cut -d " " -f 1 | sort -u); do
      each "$(printf "%s" "$modes" | sed -n "s/^$mode //p")" chmod "$mode" || fail mode
    done
    each "$names" sync "" || fail sync
    each "$names" mv "-f -t .." || fail rename
    rmdir -- "$part" || fail remove
    part=
    names=
    modes=
    sums=
    echo done
    ;;
  set)
    IFS= read -r path
    dress "$a" "$b" "$path"
    echo done
    ;;
  link)
    IFS= read -r path
    IFS= read -r target
    enter "$path"
    part=$dir/.vcbuild-link.part
    rm -rf -- "$part" || fail remove
    ln -s -- "$target" "$part" || fail link
    dress - "$a" "$part"
    [ ! -d "$path" ] || [ -L "$path" ] || fail folder
    mv -fT -- "$part" "$path" || fail rename
    part=
    echo done
    ;;
  folder)
    IFS= read -r path
    [ -d "$path" ] || mkdir -p -- "$path" || fail mkdir
    dress - "$a" "$path"
    echo done
    ;;
  gone)
    IFS= read -r root
    IFS= read -r path
    (
      cd -P -- "$root" && [ "$(pwd -P)" = "$root" ] || exit 1
      case $path in
      */*) cd -P -- "./${path%/*}" && [ "$(pwd -P)" = "$root/${path%/*}" ] || exit 1 ;;
      esac
      if [ "$a" = d ]; then rmdir -- "./${path##*/}"; else rm -f -- "./${path##*/}"; fi
    ) || fail gone
    echo done
    ;;
  end)
    leave
    echo done
    exit 0
    ;;
  esac
done
[ -z "$names" ] || rm -rf -- "$part"
exit 1
"#;

/// Prints a line `plain` or `zstd`, then a file from a byte on, in that way.
pub const READ: &str = r#"
[ -L "$2" ] && { echo "it is a link" >&2; exit 1; }
head -c 1 -- "$2" >/dev/null || exit 1
from=$(($1 + 1))
if command -v zstd >/dev/null && size=$(tail -c +$from -- "$2" | head -c 65536 | zstd -1qc | wc -c) && [ "$size" -lt 49152 ]; then
  echo zstd
  tail -c +$from -- "$2" | zstd -1qc
else
  echo plain
  exec tail -c +$from -- "$2"
fi
"#;
