//! What runs on a host to compile there: plain sh, coreutils, findutils, tar and awk, nothing installed. Knows
//! no connection.

/// Keeps a folder `~/.cache/vcbuild/work/NAME` for a while: the first of its arguments that nobody else has. In it are
/// `tree`, where commands run; `known`, whose first line is the boot of the machine and the tree that was brought, and
/// whose other lines are `DIGEST SHA-256` and the line of `find` by which a file is known to be unchanged; `scratch`; `lock`.
///
/// It answers `place PATH` and `state TREE`, then takes orders, and answers `ok` to each unless something else is said:
/// - `changed`, `all`: `listing SIZE` and lines `DIGEST KIND MODE PATH` of what is in `tree`, of all or of what is not as
///   it is known to be: `?` is unknown, `!` is gone, `/` a folder;
/// - `drop SIZE`: paths to remove;
/// - `put SIZE`: an archive to unpack, then `check SIZE`: lines `SHA-256 DIGEST PATH` of what it was;
/// - `settle TREE`: that is there now;
/// - `do SIZE`: calls of the functions here;
/// - `run SIZE MARK`: a call; what the commands print comes as it is, then a line feed, an STX, the mark and the exit
///   status. A line, or the end of the input, ends all that runs;
/// - `end`: `bye`.
///
/// Where something cannot be done it answers `fail STEP` and ends. Whatever has `VCBUILD_WORK` of a folder whose lock is
/// free is a leftover. Variables come by way of a pipe: what stands on a command line, everybody there can read.
pub const WORK: &str = r#"
run='eval "$(cat <&3)"; exec 3<&-; unset PWD OLDPWD SHLVL; command -v "$1" >/dev/null || { printf "there is no program %s\n" "$1"; exit 127; }; exec "$@"'
nl='
'
base=$HOME/.cache/vcbuild
place= c= wrote=
trap : PIPE HUP
ulimit -c 0
fail() { printf 'fail %s\n' "$*"; exit 1; }
case $HOME in /?*) ;; *) fail home ;; esac
for p in awk find flock sha256sum tar xargs; do command -v $p >/dev/null || fail need $p; done
wipe() { rm -rf -- "$1" 2>/dev/null || { chmod -R u+rwx -- "$1"; rm -rf -- "$1"; }; }

living() {
  {
    grep -lzxF -- "VCBUILD_WORK=$tree" /proc/[0-9]*/environ 2>/dev/null | tr -dc '0-9\n'
    cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^\([0-9]*\) (.*) \(.\) \([0-9]*\) [0-9]* \([0-9]*\) .*$/\1 \2 \3 \4/' | awk -v root="$c" -v self=$$ -v top=$PPID '
      $2 != "Z" { parent[$1] = $3; session[$1] = $4 }
      function below(pid, above, n) {
        for (n = 0; n < 99; n++) {
          if (pid == above) return 1
          if (!(pid in parent)) return 0
          pid = parent[pid]
        }
        return 0
      }
      END {
        for (pid in parent)
          if ((root != "" && below(pid, root)) || (session[pid] == session[self] && !below(pid, top) && !below(top, pid))) print pid
      }'
  } | sort -u
}
end() {
  p=$(living)
  [ -n "$p" ] || return 0
  if [ "$1" != 0 ]; then
    sleep "$1"
    p=$(living)
    [ -n "$p" ] || return 0
  fi
  kill -TERM $p 2>/dev/null
  IFS=. read -r since x </proc/uptime
  while sleep 0.1; p=$(living); [ -n "$p" ]; do
    IFS=. read -r now x </proc/uptime
    [ $((now - since)) -lt 3 ] || kill -KILL $p 2>/dev/null
    [ $((now - since)) -lt 15 ] || return 1
  done
  return 0
}

listing() {
  (cd "$tree" && find . -mindepth 1 -type d -printf 'd %m - - - - %P\n' -o -printf '%y %m %s %i %T@ %C@ %P\n') >"$place/listing" || fail list
}
compare() {
  awk -v known="$place/known" -v all="$1" '
    function rest(line, n, i) { for (i = 0; i < n; i++) line = substr(line, index(line, " ") + 1); return line }
    BEGIN {
      getline line <known
      while ((getline line <known) > 0) { split(line, word, " "); digest[rest(line, 2)] = word[1] }
    }
    {
      p = rest($0, 6)
      there[p] = 1
      if (!($0 in digest)) print "?", $1, $2, p
      else if (all == "all") print digest[$0], $1, $2, p
    }
    END { for (line in digest) { p = rest(line, 6); if (!(p in there)) print "!", "-", "-", p } }' "$place/listing"
}
note() {
  listing
  {
    echo "$boot $1" &&
    awk -v known="$place/known" -v fresh="$place/fresh" '
      function rest(line, n, i) { for (i = 0; i < n; i++) line = substr(line, index(line, " ") + 1); return line }
      BEGIN {
        getline line <known
        while ((getline line <known) > 0) { split(line, word, " "); digest[rest(line, 2)] = word[1] " " word[2] }
        while ((getline line <fresh) > 0) { split(line, word, " "); new[rest(line, 2)] = word[2] " " word[1] }
      }
      {
        p = rest($0, 6)
        if (p in new) print new[p], $0
        else if ($0 in digest) print digest[$0], $0
      }' "$place/listing"
  } >"$place/known.new" && mv -f -- "$place/known.new" "$place/known" || fail write
  : >"$place/fresh"
}
# The machine was started anew: after a power cut a file may hold something else than its stamp says, or be gone.
# What is gone is then known no more, and so is no change: all that is there has to be told.
read_again() {
  sed 1d "$place/known" | awk '$2 != "-" { line = $0; for (i = 0; i < 8; i++) line = substr(line, index(line, " ") + 1); print $2 "  ./" line }' |
    (cd "$tree" && sha256sum -c 2>/dev/null) | sed -n 's,^\./\(.*\): OK$,\1,p' >"$place/answer"
  {
    echo "$boot -" &&
    sed 1d "$place/known" | awk -v right="$place/answer" '
      BEGIN { while ((getline line <right) > 0) ok[line] = 1 }
      { line = $0; for (i = 0; i < 8; i++) line = substr(line, index(line, " ") + 1) }
      $2 == "-" || line in ok'
  } >"$place/known.new" && mv -f -- "$place/known.new" "$place/known" && state=-
}
send() { printf '%s %s\n' "$1" "$(stat -c %s -- "$2")"; cat -- "$2"; }

tool() { ln -s -- "$1" "$place/scratch/bin/$2" || fail make; }
keep() { mkdir -p -- "$base/keep/$1" || fail make; }
mode() { chmod -- "$1" "$tree/$2" || fail make; }
dir() { [ -d "$tree/$1" ] || fail dir "$1"; }
above() { mkdir -p -- "$tree/$1" || fail make; }
give() {
  cd "$tree/$1" || fail dir "$1"
  shift
  for o in "$@"; do
    if ! [ -e "$o" ] && ! [ -L "$o" ]; then
      { printf '%s\n' "${o#./}"; ls -A -- "$(dirname -- "$o")" 2>/dev/null | head -n 1000; } >"$place/listing"
      send missing "$place/listing"
      exit 1
    fi
  done
  o=$(find "$@" ! -type f ! -type d ! -type l | head -n 1)
  [ -z "$o" ] || fail special "${o#./}"
  o=$(find "$@" \( -name "*$nl*" -o -lname "*$nl*" \) | head -n 1)
  [ -z "$o" ] || fail newline "${o#./}"
  o=$(find "$@" -type f ! -readable | head -n 1)
  [ -z "$o" ] || fail unreadable "${o#./}"
  find "$@" -printf '%y %m %s %p\n' >"$place/listing" || fail list
  find "$@" -type l -printf '%l\n' >"$place/links" || fail list
  sed -n 's/^f [0-9]* [0-9]* //p' "$place/listing" >"$place/files" || fail list
  xargs -r -d '\n' sha256sum -b -- <"$place/files" | sed 's/^\\//' | cut -c 1-64 >"$place/hashes" || fail list
  send given "$place/listing"
  send links "$place/links"
  send hashes "$place/hashes"
  xargs -r -d '\n' cat -- <"$place/files" || exit 1
  cd /
}

mkdir -p -m 700 -- "$base" && mkdir -p -- "$base/work" || fail make
find "$base/work" -mindepth 2 -maxdepth 2 -name lock -mtime +30 2>/dev/null | while IFS= read -r old; do
  (flock -n 7 && mv -T -- "${old%/lock}" "$base/work/.gone.$$" && wipe "$base/work/.gone.$$") 7>>"$old"
done
for old in "$base"/work/.gone.*; do wipe "$old"; done
patience=15
for name in "$@"; do
  tree=$base/work/$name
  mkdir -p -- "$tree" && touch -- "$tree/lock" || fail make
  exec 9>>"$tree/lock"
  if flock -n 9; then place=$tree
  elif [ $patience -gt 0 ]; then
    echo waits
    if flock -w $patience 9; then place=$tree; else patience=0; fi
  fi
  # Somebody may just have cleared it away.
  [ -z "$place" ] || ! [ "$tree/lock" -ef /proc/self/fd/9 ] || break
  place=
done
[ -n "$place" ] || fail busy
trap 'wipe "$place/scratch"' EXIT
tree=$place/tree
mkdir -p -- "$tree" || fail make
end 0 || fail running $p
# One by one: what is in a folder is seen only then.
find "$tree" -type d ! -perm -700 -exec chmod u+rwx {} \;
find "$tree" -name "*$nl*" -prune -exec rm -rf -- {} +
wipe "$place/scratch"
mkdir -p -- "$place/scratch/home" "$place/scratch/tmp" "$place/scratch/bin" && : >"$place/fresh" || fail make
boot=$(cat /proc/sys/kernel/random/boot_id)
state=
if [ -f "$place/known" ]; then
  IFS=' ' read -r b state <"$place/known" || state=
  if [ -n "$state" ] && [ "$b" != "$boot" ]; then read_again || state=; fi
fi
[ -n "$state" ] || { : >"$place/known"; state=-; }
printf 'place %s\nstate %s\n' "$place" "$state"
exec 8<&0

while IFS=' ' read -r op a b; do
  case $op in
  changed | all)
    listing
    compare $op >"$place/answer" || fail write
    send listing "$place/answer"
    ;;
  drop)
    head -c "$a" | (cd "$tree" && xargs -r -d '\n' rm -rf --) || fail drop
    echo ok
    ;;
  put)
    wrote=1
    touch -- "$place/fresh"
    head -c "$a" | (cd "$tree" && tar -xpmf - --no-same-owner) || {
      # Half of it is of no use, and may be what fills the disk.
      find "$tree" -type f -cnewer "$place/fresh" -exec rm -f -- {} +
      fail write
    }
    echo ok
    ;;
  check)
    head -c "$a" >"$place/fresh" && [ "$(stat -c %s -- "$place/fresh")" = "$a" ] || fail write
    # A list of digests to check cannot have every name: `sha256sum` takes a CR for the end of a line.
    awk '$1 != "-" { print "./" substr($0, length($1) + length($2) + 3) }' "$place/fresh" |
      (cd "$tree" && xargs -r -d '\n' sha256sum -b --) | sed 's/^\\//' | cut -c 1-64 >"$place/answer" || fail write
    awk -v came="$place/answer" '
      $1 == "-" { next }
      (getline hash <came) <= 0 || hash != $1 { print "not as it was sent:" substr($0, length($1) + length($2) + 2); wrong = 1 }
      END { exit wrong }' "$place/fresh" >&2 || fail digest
    note -
    echo ok
    ;;
  settle)
    note "$a"
    # From now on the commands may change what was written: not within one tick of the clock.
    [ -z "$wrote" ] || sleep 0.02
    echo ok
    ;;
  do)
    eval "$(head -c "$a")"
    echo ok
    ;;
  run)
    call=$(head -c "$a")
    printf '%s\n' "$call" | { exec env -i /bin/sh -c "$run" vcbuild 3<&0 </dev/null 8<&- 9>&-; } 2>&1 &
    c=$!
    call=
    { IFS= read -r stop <&8; end 0; } &
    m=$!
    while :; do
      wait $c
      s=$?
      kill -0 $c 2>/dev/null || break
    done
    kill $m 2>/dev/null
    wait $m 2>/dev/null
    c=
    end 0.2 || fail running $p
    printf '\n\002%s %s\n' "$b" "$s"
    ;;
  end)
    wipe "$place/scratch"
    echo bye
    exit 0
    ;;
  esac
done
exit 1
"#;
