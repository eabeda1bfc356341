# bash completion for chmux(1)

_chmux() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} word command= i
    local commands="status show top reload pause resume reconnect kill log-level drain shutdown wait
        check help"
    local lists="clients exchanges pool endpoints queue users pipes config errors memory"
    local options="--admin --timeout --help --version"
    COMPREPLY=()

    # "--watch=1" comes as three words, because bash parts words at "=" too.
    case $prev in
    --admin)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --timeout | --limit | =) return ;;
    esac
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        --admin | --timeout | --limit | =) ((i++)) ;;
        -*) ;;
        *)
            if [ -z "$command" ]; then
                command=$word
            else
                command="$command argument"
            fi
            ;;
        esac
    done

    case $command in
    status*) options="$options --json --watch" ;;
    show*) options="$options --json --watch --limit --wide" ;;
    top) options="$options --watch" ;;
    shutdown) options="$options --json --now" ;;
    wait) options="$options --json --ready --upstream" ;;
    pause | resume | reconnect) options="$options --json --upstream=" ;;
    *) options="$options --json" ;;
    esac
    case $cur in
    -*)
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
        ;;
    esac
    case $command in
    "") mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur") ;;
    show) mapfile -t COMPREPLY < <(compgen -W "$lists" -- "$cur") ;;
    log-level) mapfile -t COMPREPLY < <(compgen -W "error warn info debug" -- "$cur") ;;
    check) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    esac
}

complete -o filenames -F _chmux chmux
