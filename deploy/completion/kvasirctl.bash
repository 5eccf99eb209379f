# Completion of kvasirctl for bash: source it, or let the package put it into
# /usr/share/bash-completion/completions/kvasirctl. `kvasirctl completion bash` prints this file.
_kvasirctl() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local commands="stats top tenants sequences snapshots prefixes explain curve events evict tiers drain trace resize inspect policies doctor health completion"
  local options="--socket --output --color --deadline --help --version"
  local command="" word
  # bash cuts --name=value at "=": complete the value as if a space stood there.
  if [[ $current == "=" ]]; then
    current=""
  elif [[ $previous == "=" ]]; then
    previous=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  case $previous in
    --socket | --data-socket)
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
      ;;
    --output)
      if [[ " ${COMP_WORDS[*]} " == *" trace "* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
      else
        mapfile -t COMPREPLY < <(compgen -W "table json" -- "$current")
      fi
      return
      ;;
    --color)
      mapfile -t COMPREPLY < <(compgen -W "auto always never" -- "$current")
      return
      ;;
    --sort)
      mapfile -t COMPREPLY < <(compgen -W "tenant share charged held hit lookups compactions rejected" -- "$current")
      return
      ;;
    --deadline | --interval | --tenant | --layer | --from | --rows | --count | --seconds | --pool-bytes | --attack-users)
      COMPREPLY=()
      return
      ;;
  esac
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ " $commands " == *" $word "* ]]; then
      command=$word
      break
    fi
  done
  case $command in
    "") options="$commands $options" ;;
    sequences | snapshots | prefixes | explain | curve | evict | drain) options="--tenant $options" ;;
    top) options="--interval --sort --count --once $options" ;;
    events) options="--tenant --from --count $options" ;;
    trace) options="record --tenant --output --seconds $options" ;;
    resize) options="--pool-bytes $options" ;;
    doctor) options="--attack --attack-users --data-socket $options" ;;
    inspect) options="--layer --from --rows $options" ;;
    completion) options="bash $options" ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}
complete -F _kvasirctl kvasirctl
