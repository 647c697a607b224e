//! `portcullis completions`: shell completion scripts.
//!
//! Names of namespaces and Services are those that the daemon on this node knows: the scripts ask it by `portcullis services`.

use std::io::{self, Write};

use clap_complete::aot::{Shell, generate};

use crate::config::{CompletionShell, Completions, completed_command_line};

/// Bash: completes names, and leaves all else to the generated function.
const BASH_NAMES: &str = r#"
# The first column of `portcullis services`, without its head.
_portcullis_names() {
    portcullis services "$@" 2>/dev/null | awk 'NR > 1 && NF > 1 { print $1 }' | sort -u
}

_portcullis_with_names() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" at namespace=default
    case "$prev" in
        -n|--namespace)
            COMPREPLY=($(compgen -W "$(_portcullis_names -A)" -- "$cur"))
            return
            ;;
    esac
    for ((at = 2; at < COMP_CWORD - 1; at++)); do
        [[ "${COMP_WORDS[at]}" == @(-n|--namespace) ]] && namespace="${COMP_WORDS[at+1]}"
    done
    # The name of a Service follows the subcommand, or the namespace.
    if [[ "${COMP_WORDS[1]}" == services && "$cur" != -* ]] \
        && [[ "$prev" == services || "${COMP_WORDS[COMP_CWORD-2]}" == @(-n|--namespace) ]]; then
        COMPREPLY=($(compgen -W "$(_portcullis_names -n "$namespace")" -- "$cur"))
        return
    fi
    _portcullis "$@"
}
complete -F _portcullis_with_names -o bashdefault -o default portcullis
"#;

/// Zsh: the functions that the arguments call.
const ZSH_NAMES: &str = r#"
# The first column of `portcullis services`, without its head.
_portcullis_names() {
    local -a names
    names=(${(f)"$(portcullis services "$@" 2>/dev/null | awk 'NR > 1 && NF > 1 { print $1 }' | sort -u)"})
    compadd -a names
}

_portcullis_namespaces() { _portcullis_names -A }

_portcullis_services() { _portcullis_names -n "${opt_args[-n]:-${opt_args[--namespace]:-default}}" }
"#;

/// Fish: the functions that the arguments call, and the names of Services.
const FISH_NAMES: &str = r#"
# The first column of `portcullis services`, without its head.
function __fish_portcullis_names
    portcullis services $argv 2>/dev/null | awk 'NR > 1 && NF > 1 { print $1 }' | sort -u
end

function __fish_portcullis_services
    set -l words (commandline -opc)
    set -l namespace default
    for at in (seq 2 (count $words))
        if contains -- $words[$at] -n --namespace; and test $at -lt (count $words)
            set namespace $words[(math $at + 1)]
        end
    end
    __fish_portcullis_names -n $namespace
end
complete -c portcullis -n "__fish_portcullis_using_subcommand services" -f -a "(__fish_portcullis_services)"
"#;

/// Prints the completion script of a shell.
///
/// # Errors
/// The script cannot be written.
pub fn run(completions: &Completions, out: &mut impl Write) -> io::Result<()> {
    let shell = match completions.shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    // The generator panics on a write error, so it writes to memory.
    let mut script = Vec::new();
    generate(shell, &mut completed_command_line(), "portcullis", &mut script);
    let script = String::from_utf8(script).map_err(io::Error::other)?;
    out.write_all(with_names(completions.shell, &script).as_bytes())
}

/// Adds the completion of names to a generated script.
fn with_names(shell: CompletionShell, script: &str) -> String {
    match shell {
        CompletionShell::Bash => script.to_owned() + BASH_NAMES,
        CompletionShell::Zsh => {
            let (head, rest) = script.split_once('\n').unwrap_or((script, ""));
            let lines = rest.lines().map(|line| match line.rsplit_once(":_default'") {
                Some((start, end)) if is_namespace(line) => format!("{start}:_portcullis_namespaces'{end}\n"),
                Some((start, end))
                    if line.contains("NAME or NAMESPACE/NAME") && line.starts_with("'::name ") =>
                {
                    format!("{start}:_portcullis_services'{end}\n")
                }
                _ => format!("{line}\n"),
            });
            format!("{head}\n{ZSH_NAMES}{}", lines.collect::<String>())
        }
        CompletionShell::Fish => {
            let lines = script.lines().map(|line| match line.strip_suffix(" -r") {
                Some(start) if line.contains(" -l namespace ") => {
                    format!("{start} -x -a \"(__fish_portcullis_names -A)\"\n")
                }
                _ => format!("{line}\n"),
            });
            lines.collect::<String>() + FISH_NAMES
        }
    }
}

/// Returns true for a line of zsh's script about the value of `--namespace`.
fn is_namespace(line: &str) -> bool {
    let flag = line.trim_start_matches(['\'', '*']);
    // The flags that it excludes come first.
    let flag = flag.strip_prefix('(').and_then(|rest| Some(rest.split_once(')')?.1)).unwrap_or(flag);
    flag.starts_with("-n+[") || flag.starts_with("--namespace=[")
}
