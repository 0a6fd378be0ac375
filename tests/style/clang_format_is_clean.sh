#!/bin/sh
# clang_format_is_clean.sh ROOT: every C and CUDA file is as clang-format would write it. `clang-format -i FILE...` mends what is not.
# Other versions than 14, which the .clang-format file is written for, lay some lines out differently; they are not asked.
set -eu
cd "$1"
for program in clang-format-14 clang-format; do
    if command -v "$program" >/dev/null && "$program" --version | grep -q 'version 14\.'; then
        files=$(find src include tests \( -name '*.[ch]' -o -name '*.cu' \) | sort)
        failed=""
        for file in $files; do
            "$program" --dry-run -Werror "$file" 2>/dev/null || failed="$failed $file"
        done
        if [ -n "$failed" ]; then
            echo "not laid out as .clang-format says:$failed"
            exit 1
        fi
        echo "$(echo "$files" | wc -l) files are clean"
        exit 0
    fi
done
echo "clang-format 14 is not installed"
exit 77
