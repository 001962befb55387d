# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Completion of ckptctl for bash: put it into /usr/share/bash-completion/completions/ckptctl.

_ckptctl() {
    local current=${COMP_WORDS[COMP_CWORD]} words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="create status checkpoint check unmount help --help --version"
    else
        case ${COMP_WORDS[1]} in
            create) words="--help -o file:/// s3://" ;;
            status) words="--fuse --help --json --root" ;;
            checkpoint) words="--help --json --local --no-wait --quiet" ;;
            check) words="--help --json --quiet" ;;
            unmount) words="--help --json --quiet --wait" ;;
            help) words="create status checkpoint check unmount" ;;
        esac
    fi
    if [ "$COMP_CWORD" -gt 1 ] && [ "${COMP_WORDS[1]}" != create ] &&
        [ "${COMP_WORDS[1]}" != help ] && [ "${current#-}" = "$current" ]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    fi
}
complete -F _ckptctl ckptctl
