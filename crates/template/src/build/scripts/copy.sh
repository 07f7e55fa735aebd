# Places one entry of an unpacked archive.
# $1: archive; $2: entry in it, empty for all; $3: destination, absolute or not; $4: directory
# that a relative one starts from, empty for the user's home; $5: user; $6: owner; $7: mode.
set -u
archive=$1 entry=$2 dest=$3 base=$4 user=$5 owner=$6 mode=$7
stage=$archive.d
mkdir -p "$stage" || exit 1
tar -xf "$archive" -C "$stage" || { printf 'failed to extract files\n' >&2; exit 90; }
rm -f "$archive"
source=$stage/$entry
source=${source%/}
[ -e "$source" ] || [ -L "$source" ] || {
    printf 'source %s does not exist\n' "${entry:-.}" >&2
    exit 1
}
case $dest in
/*) ;;
*)
    [ -n "$base" ] || base=$(awk -F: -v n="$user" '$1 == n { print $6 }' /etc/passwd)
    dest=${base:-/}/$dest
    ;;
esac
case $owner in
*:*) ;;
*) owner=$owner:$owner ;;
esac

# Merges the content of directory $1 into directory $2.
merge() {
    local item name to
    for item in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        [ -e "$item" ] || [ -L "$item" ] || continue
        name=${item##*/}
        to=$2/$name
        if [ -d "$item" ] && [ ! -L "$item" ]; then
            if [ -d "$to" ]; then
                merge "$item" "$to" || return 1
                continue
            elif [ -e "$to" ] || [ -L "$to" ]; then
                printf 'cannot replace %s by a directory\n' "$to" >&2
                return 1
            fi
        elif [ -d "$to" ] && [ ! -L "$to" ]; then
            printf 'cannot replace the directory %s by a file\n' "$to" >&2
            return 1
        fi
        [ -L "$to" ] && { rm -f -- "$to" || return 1; }
        mv -fT -- "$item" "$to" 2>/dev/null || mv -f -- "$item" "$to" || return 1
    done
}

if [ -L "$source" ]; then
    chown -h -- "$owner" "$source" || exit 1
else
    chown -hR -- "$owner" "$source" || exit 1
fi
if [ -d "$source" ] && [ ! -L "$source" ]; then
    if [ -n "$mode" ]; then
        # Directories are entered and written below; those that are moved whole keep the mode.
        find "$source" -mindepth 1 ! -type l -exec chmod "$mode" {} + || exit 1
    fi
    if [ ! -d "$dest" ]; then
        mkdir -p -- "$dest" || exit 1
        chown -- "$owner" "$dest" || exit 1
        [ -z "$mode" ] || chmod "$mode" "$dest" || exit 1
    fi
    merge "$source" "${dest%/}" || exit 1
else
    if [ -n "$mode" ] && [ ! -L "$source" ]; then
        chmod "$mode" "$source" || exit 1
    fi
    case $dest in
    */) mkdir -p -- "$dest" || exit 1 ;;
    *) mkdir -p -- "$(dirname "$dest")" || exit 1 ;;
    esac
    if [ -d "$dest" ]; then
        dest=${dest%/}/${source##*/}
        [ -d "$dest" ] && [ ! -L "$dest" ] && {
            printf 'cannot replace the directory %s by a file\n' "$dest" >&2
            exit 1
        }
    fi
    [ -L "$dest" ] && { rm -f -- "$dest" || exit 1; }
    mv -f -- "$source" "$dest" || exit 1
fi
rm -rf "$stage"
