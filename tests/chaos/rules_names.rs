//! Names of the program's chains, sets and maps, for commands of other processes.

use portcullis_lab::NetNs;
use portcullis_netlink::nf_tables::{self, TableFamily};

use super::random::Random;

/// Replaces `{chain}`, `{set}` and `{map}` by a random object of the program in the table of the command. Returns `None` if
/// there is none.
pub(crate) fn fill_in(netns: &NetNs, command: &str, random: &mut Random) -> Option<String> {
    // A number is drawn for each command, so that later ones do not depend on the kernel.
    let number = random.below(1 << 20);
    let Some(placeholder) = ["{chain}", "{set}", "{map}"].into_iter().find(|name| command.contains(name))
    else {
        return Some(command.to_owned());
    };
    let names = if command.starts_with("nft") {
        nft_names(netns, command, placeholder)
    } else {
        iptables_chains(netns, command)
    };
    let name = names.get(number % names.len().max(1))?;
    let quoted: Vec<String> =
        if command.starts_with("nft") { vec![command.replacen("nft ", "", 1)] } else { Vec::new() };
    let filled = match quoted.first() {
        // The shell must not see braces and quotation marks of nft.
        Some(arguments) => format!("nft '{}'", arguments.replace(placeholder, name)),
        None => command.replace(placeholder, name),
    };
    Some(filled)
}

fn nft_names(netns: &NetNs, command: &str, placeholder: &str) -> Vec<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let table = words.iter().position(|word| word.starts_with("portcullis")).expect("a table of the program");
    let family = match words[table - 1] {
        "ip" => TableFamily::Ip,
        "ip6" => TableFamily::Ip6,
        _ => TableFamily::Inet,
    };
    let read = || {
        let mut socket = nf_tables::open().ok().flatten()?;
        nf_tables::read(&mut socket, family, words[table]).ok().flatten()
    };
    let Some((found, _)) = netns.run(read).expect("the namespace exists") else { return Vec::new() };
    match placeholder {
        "{chain}" => found.chains.keys().map(ToString::to_string).collect(),
        _ => {
            let is_map = placeholder == "{map}";
            let sets = found.sets.iter().filter(|(_, set)| set.spec.data.is_empty() != is_map);
            sets.map(|(name, _)| name.to_string()).collect()
        }
    }
}

/// Returns the program's chains in the table of a command of `iptables`.
fn iptables_chains(netns: &NetNs, command: &str) -> Vec<String> {
    let mut words = command.split_whitespace();
    let tool = words.next().expect("a tool");
    let table = words.skip_while(|word| *word != "-t").nth(1).expect("a table");
    let output =
        netns.command(format!("{tool}-save")).args(["-t", table]).output().expect("the tools are installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let chains = text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    let mut chains: Vec<String> =
        chains.filter(|chain| chain.starts_with("KUBE-")).map(str::to_owned).collect();
    chains.sort();
    chains
}
