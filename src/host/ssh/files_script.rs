//! What runs on a host to look at files and to place them: plain sh and coreutils, nothing installed.
//! Knows no connection.

/// A partial file of at least this size is kept when the connection is cut, and gone on with.
pub const RESUMED: u64 = 4 << 20;

/// Reads lines `SIZE PATH` to the end (`-` is any size). Prints for each path that is there
/// `MODE SIZE UID GID USER GROUP PATH` (mode in hexadecimal), then a line `==`, then `SHA-256  PATH` for the regular
/// files of the right size, then `==`.
pub const ASK: &str = r#"
list=$(cat)
[ -n "$list" ] || { echo ==; echo ==; exit 0; }
stats=$(printf "%s\n" "$list" | cut -d " " -f 2- | xargs -d "\n" stat -c "%f %s %u %g %U %G %n" -- 2>/dev/null)
printf "%s\n" "$stats"
echo ==
{ printf "%s\n" "$list"; echo; printf "%s\n" "$stats"; } | awk '
  $0 == "" { second = 1; next }
  !second { at = index($0, " "); want[substr($0, at + 1)] = substr($0, 1, at - 1); next }
  {
    path = $0
    for (i = 0; i < 6; i++) path = substr(path, index(path, " ") + 1)
    if (substr($1, 1, 1) == "8" && length($1) == 4 && (want[path] == "-" || want[path] == $2)) print path
  }' | xargs -r -d "\n" sha256sum -b --
echo ==
exit 0
"#;

/// Reads lines, each of them followed by bytes where that is said:
/// - `put SIZE MODE OWNER DIGEST` and a line with the path: answers `have N`, then takes SIZE less N bytes; placed, it answers `done`;
/// - `set MODE OWNER` and a line with the path: mode and owner; answers `done`;
/// - `end`: answers `done` when all of it is on the disk.
///
/// It answers `fail STEP` and ends where something cannot be done. A folder is locked while something is placed in it, so
/// that any partial file there is a leftover.
pub const PLACE: &str = r#"
cur=
RESUMED=$1
fail() { echo "fail $1"; [ -z "$part" ] || rm -f -- "$part"; exit 1; }
leave() {
  [ -n "$cur" ] || return 0
  part=
  rm -f -- "$cur"/.vcbuild-*.part
  sync -- "$cur" || fail sync
  exec 9<&-
  cur=
}
enter() {
  [ "$1" != "$cur" ] || return 0
  leave
  mkdir -p -- "$1" || fail mkdir
  exec 9<"$1" || fail open
  if command -v flock >/dev/null; then flock -n 9 || { echo waits; flock -w 3600 9 || fail lock; }; fi
  cur=$1
}
dress() {
  [ "$2" = - ] || chown -h -- "$2" "$3" || fail owner
  chmod -- "$1" "$3" || fail mode
}
part=
while IFS=" " read -r op a b c d; do
  case $op in
  put)
    IFS= read -r path
    dir=${path%/*}
    enter "${dir:-/}"
    part=${dir}/.vcbuild-$d.part
    have=0
    if [ -f "$part" ] && [ ! -L "$part" ] && [ -O "$part" ]; then
      have=$(stat -c %s -- "$part") || fail look
      [ "$have" -lt "$a" ] || { rm -f -- "$part"; have=0; }
    else
      rm -rf -- "$part" || fail remove
    fi
    echo "have $have"
    (umask 077; head -c $((a - have)) >>"$part") || fail write
    size=$(stat -c %s -- "$part") || fail look
    if [ "$size" -ne "$a" ]; then
      [ "$size" -ge "$RESUMED" ] || rm -f -- "$part"
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
  set)
    IFS= read -r path
    dress "$a" "$b" "$path"
    echo done
    ;;
  end)
    leave
    echo done
    exit 0
    ;;
  esac
done
exit 1
"#;

/// Prints a file from a byte on.
pub const READ: &str = r#"
[ -L "$2" ] && { echo "it is a link" >&2; exit 1; }
exec tail -c +"$(($1 + 1))" -- "$2"
"#;
