# Programs that users install for themselves come first.
for folder in "$HOME/.npm-global/bin" "$HOME/.local/bin"; do
    case ":$PATH:" in
        *":$folder:"*) ;;
        *) PATH="$folder:$PATH" ;;
    esac
done
export PATH
unset folder
# If neither the client nor the image names a locale.
export LANG="${LANG:-C.UTF-8}"
