# History that survives a dev container: a volume at /commandhistory (see devcontainer.json).
if [ -d /commandhistory ] && [ -w /commandhistory ]; then
    if [ -n "${ZSH_VERSION:-}" ]; then
        HISTFILE=/commandhistory/.zsh_history HISTSIZE=10000 SAVEHIST=10000
    else
        HISTFILE=/commandhistory/.bash_history
    fi
elif [ -n "${ZSH_VERSION:-}" ] && [ -z "${HISTFILE:-}" ]; then
    HISTFILE=$HOME/.zsh_history HISTSIZE=10000 SAVEHIST=10000
fi
