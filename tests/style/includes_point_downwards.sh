#!/bin/sh
# includes_point_downwards.sh ROOT: a file in src/ROOM or include/mdm/ROOM includes mdm/<room>/... of its own room and of rooms
# below it only, and never a file of another room by a relative path. The rooms, from the ground up; those on one floor do not know
# each other:
floors="base
comm
device data
divide model
report
train
cli"
set -eu
cd "$1"

# floor_of ROOM: its number from 1 at the ground; nothing for an unknown room
floor_of() {
    echo "$floors" | awk -v room="$1" '{ for (i = 1; i <= NF; i++) if ($i == room) print NR }'
}

failures=0
checked=0
fail() {
    echo "$*"
    failures=$((failures + 1))
}

for folder in src/* include/mdm/*; do
    [ -d "$folder" ] || continue
    room=${folder##*/}
    floor=$(floor_of "$room")
    if [ -z "$floor" ]; then
        fail "$folder: this room is not in the list in tests/style/includes_point_downwards.sh"
        continue
    fi
    # FILE:LINE:#include "PATH" of every include in the room
    includes=$(grep -rnE --include='*.[ch]' --include='*.cu' --include='*.cuh' '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<](mdm/|.*\.\./)' \
        "$folder" | sed -E 's/^([^:]*:[0-9]*):[^"<]*["<]([^">]*)[">].*/\1 \2/') || includes=""
    while read -r place path; do
        [ -n "$place" ] || continue
        checked=$((checked + 1))
        case $path in
        *..*) fail "$place: $path: reach other rooms by mdm/<room>/..., not by a relative path" ;;
        mdm/*)
            below=${path#mdm/}
            below=${below%%/*}
            below_floor=$(floor_of "$below")
            if [ -z "$below_floor" ]; then
                fail "$place: $path: there is no room $below"
            elif [ "$below" != "$room" ] && [ "$below_floor" -ge "$floor" ]; then
                fail "$place: $path: $room may not know $below, which is not below it"
            fi
            ;;
        esac
    done <<END
$includes
END
done

if [ "$checked" -eq 0 ]; then
    fail "no includes were found under $1; is that the source folder?"
fi
[ "$failures" -eq 0 ] || exit 1
echo "$checked includes point downwards"
