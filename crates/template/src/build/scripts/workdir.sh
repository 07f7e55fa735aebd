# Makes a directory with its parents. $1: absolute path; $2: owner of what is made.
set -u
path=$1 user=$2
[ -d "$path" ] && exit 0
first=$path
while parent=$(dirname "$first") && [ ! -d "$parent" ]; do first=$parent; done
mkdir -p -- "$path" || exit 1
chown -R -- "$user:" "$first" || exit 1
