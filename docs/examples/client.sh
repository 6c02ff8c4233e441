#!/usr/bin/env bash
# An access token from spotokend with bash, od, and nc (OpenBSD's) or socat: `bash client.sh [ACCOUNT]` prints it.
#
# See ../protocol.md. It asks once, reads one reply and ends, with the exit statuses of `spotokend token` and what the daemon
# has to say on stderr. The token goes through this shell to stdout, and is in no program's arguments. Whoever listens on
# the path is trusted. Where the spotokend command is at hand, use that: it knows more, and is faster.
set -euo pipefail
export LC_ALL=C # lengths are in bytes

account=${1:-${SPOTOKEND_ACCOUNT:-}}
socket=${SPOTOKEND_SOCK:-${XDG_RUNTIME_DIR:-/run/user/$UID}/spotokend/spotokend.sock}
patience=75 # seconds; the daemon may take 70

fail() { # fail STATUS WORDS
    printf '%s\n' "$2" >&2
    exit "$1"
}

request() { # [0, 1, "token", [{"account": ACCOUNT}]]; without an account [0, 1, "token", []]
    printf '\x94\x00\x01\xa5token'
    if [[ $account ]]; then
        printf '\x91\x81\xa7account\xd9'
        printf "\\x$(printf %02x ${#account})%s" "$account"
    else
        printf '\x90'
    fi
}

# Either shuts down its sending half at the end of its input. The daemon answers what it was asked, and ends the rest.
if [[ $(nc -h 2>&1) == *-N*-U* ]]; then
    talk=(nc -N -w "$patience" -U "$socket")
elif command -v socat >/dev/null; then
    talk=(socat -t "$patience" - "UNIX-CONNECT:$socket")
else
    fail 2 'this needs nc (that of OpenBSD) or socat'
fi
((${#account} < 256)) || fail 2 'that is no name of an account'

reply=($(request | "${talk[@]}" | od -An -v -tx1)) || true # its bytes, two hex digits each
((${#reply[@]})) || fail 4 "spotokend does not answer on $socket; start it: spotokend run"
declare -A found # all texts and numbers of the reply by their places, such as found[reply.3.access_token]
at=0

number() { # number COUNT: the next bytes as an unsigned integer in $number
    local hex
    ((at + $1 <= ${#reply[@]})) || fail 4 "spotokend's reply is cut off"
    printf -v hex %s "${reply[@]:at:$1}"
    number=$((16#$hex)) at=$((at + $1))
}

text() { # text COUNT PLACE
    local text=
    ((at + $1 <= ${#reply[@]})) || fail 4 "spotokend's reply is cut off"
    (($1 == 0)) || printf -v text '\\x%s' "${reply[@]:at:$1}"
    printf -v text %b "$text"
    found[$2]=$text at=$((at + $1))
}

array() { # array COUNT PLACE
    local index
    for ((index = 0; index < $1; index++)); do value "$2.$index"; done
}

map() { # map COUNT PLACE
    local index
    for ((index = 0; index < $1; index++)); do
        value key
        value "$2.${found[key]}"
    done
}

value() { # value PLACE: the next value
    number 1
    case ${reply[at - 1]} in
        [0-7]?) found[$1]=$number ;;
        8?) map $((number & 15)) "$1" ;;
        9?) array $((number & 15)) "$1" ;;
        [ab]?) text $((number & 31)) "$1" ;;
        c0 | c2 | c3 | [ef]?) ;; # nil, false, true, and small negative numbers
        c4 | d9) number 1 && text "$number" "$1" ;;
        c5 | da) number 2 && text "$number" "$1" ;;
        c6 | db) number 4 && text "$number" "$1" ;;
        cc | d0) number 1 && found[$1]=$number ;;
        cd | d1) number 2 && found[$1]=$number ;;
        ca | ce | d2) number 4 && found[$1]=$number ;;
        cb | cf | d3) number 8 && found[$1]=$number ;;
        dc) number 2 && array "$number" "$1" ;;
        dd) number 4 && array "$number" "$1" ;;
        de) number 2 && map "$number" "$1" ;;
        df) number 4 && map "$number" "$1" ;;
        *) fail 4 "what answers on $socket is not spotokend" ;;
    esac
}

until [[ ${found[reply.0]-} == 1 && ${found[reply.1]-} == 1 ]]; do # a response to request 1; anything else is skipped
    found=()
    value reply
done
if [[ ! ${found[reply.2]-}${found[reply.2.0]-} && ${found[reply.3.access_token]-} ]]; then
    printf '%s\n' "${found[reply.3.access_token]}"
    exit
fi
case ${found[reply.2.1]+${found[reply.2.0]}} in # an error is [code, message, details]
    bad_request | unknown_method | misconfigured) status=2 ;;
    login_required) status=3 ;;
    unavailable | busy | locked) status=5 ;;
    insufficient_scope) status=6 ;;
    forbidden | unknown_account) status=7 ;;
    *) status=1 ;;
esac
hint=${found[reply.2.2.hint]-}
fail "$status" "${found[reply.2.1]-neither a token nor an error}${hint:+$'\n'  → $hint}"
