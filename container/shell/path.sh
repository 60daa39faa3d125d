# What the user installs for themselves comes first.
for folder in "$HOME/.npm-global/bin" "$HOME/.local/bin"; do
    case ":$PATH:" in
        *":$folder:"*) ;;
        *) PATH="$folder:$PATH" ;;
    esac
done
export PATH
unset folder
# Where neither the client nor the image names a locale.
export LANG="${LANG:-C.UTF-8}"
