//! `distilface completions SHELL`: the script that completes commands and flags in a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, output::Output};

/// Write a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  distilface completions bash > ~/.local/share/bash-completion/completions/distilface
  distilface completions zsh > ~/.zfunc/_distilface
  distilface completions fish > ~/.config/fish/completions/distilface.fish")]
pub struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub fn run(args: &CompletionsArgs, out: &Output) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "distilface", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())
}
