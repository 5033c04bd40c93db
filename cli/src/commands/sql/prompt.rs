//! The prompt: statements over several lines until `;`, a history, and completion of names.

use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use tidemill_engine::problem::nearest;
use tidemill_engine::schema::type_name;
use tidemill_sql::Engine;

use super::{Args, Format, Shower};

const HELP: &str = "\
statements end with `;` and may go over several lines
  \\d              lists the tables
  \\d TABLE        lists a table's columns
  \\f [WORD]       lists the functions that have WORD in their names
  \\timing         says how long statements take, or stops saying it
  \\format NAME    prints rows as table, csv, json or jsonl
  \\rows N         shows at most N rows of a table; 0 for all
  \\q              leaves; so does Ctrl-D
Ctrl-C stops a statement that runs";

const KEYWORDS: [&str; 54] = [
    "ALL",
    "AND",
    "AS",
    "ASC",
    "ASOF",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "CURRENT",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXPLAIN",
    "ANALYZE",
    "FILTER",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATCH_CONDITION",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "QUALIFY",
    "RANGE",
    "ROW",
    "ROWS",
    "SELECT",
    "THEN",
    "TIMESTAMP",
    "UNION",
    "WHEN",
    "WHERE",
    "WITH",
];

/// What completion knows.
#[derive(Default)]
struct Words {
    all: Vec<String>,
}

impl Helper for Words {}
impl Highlighter for Words {}

impl Hinter for Words {
    type Hint = String;
}

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(if is_whole(context.input()) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

/// Whether a text is a command, nothing, or ends in `;`.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('\\') || text.ends_with(';')
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let start = line[..at]
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |i| i + line[i..].chars().next().map_or(1, char::len_utf8));
        let word = line[start..at].to_lowercase();
        if word.is_empty() {
            return Ok((start, Vec::new()));
        }
        let fits = self.all.iter().filter(|w| w.to_lowercase().starts_with(&word));
        Ok((start, fits.cloned().collect()))
    }
}

/// Where lines are kept between sessions.
fn history() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let folder = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(folder.join("tidemill/sql_history"))
}

/// Asks for statements until the user leaves.
pub(super) async fn run(engine: Engine, args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .max_history_size(10_000)?
        .build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(config)?;
    let history = history();
    if let Some(path) = &history {
        if let Some(folder) = path.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        let _ = editor.load_history(path);
    }
    let mut shower = Shower::new(args)?;
    println!("\\? helps, \\d lists the tables, \\q leaves");
    loop {
        editor.set_helper(Some(words(&engine).await));
        // Reading blocks; nothing else runs meanwhile.
        let line = tokio::task::block_in_place(|| editor.readline("tidemill> "));
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        let _ = editor.add_history_entry(text);
        if let Some(path) = &history {
            let _ = editor.append_history(path);
        }
        if let Some(command) = text.strip_prefix('\\') {
            if !command_line(&engine, command.trim_end_matches(';'), &mut shower).await {
                break;
            }
            continue;
        }
        tokio::select! {
            result = super::script(&engine, text, &mut shower) => {
                if let Err(error) = result {
                    eprintln!("error: {error:#}");
                }
            }
            _ = tokio::signal::ctrl_c() => eprintln!("stopped"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn words(engine: &Engine) -> Words {
    let mut all: Vec<String> = KEYWORDS.iter().map(|k| (*k).to_owned()).collect();
    all.extend(engine.function_names().iter().cloned());
    // A moment's trouble with the archive must not take the prompt away.
    for table in engine.tables().await.unwrap_or_default() {
        all.extend(table.schema.fields().iter().map(|f| f.name().clone()));
        all.push(table.name);
    }
    all.sort_unstable();
    all.dedup();
    Words { all }
}

/// Does what a line that begins with `\` asks; false to leave.
async fn command_line(engine: &Engine, command: &str, shower: &mut Shower) -> bool {
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    match name {
        "q" => return false,
        "?" | "h" | "help" => println!("{HELP}"),
        "timing" => {
            shower.timing = !shower.timing;
            println!("timing is {}", if shower.timing { "on" } else { "off" });
        }
        "format" => match <Format as clap::ValueEnum>::from_str(rest, true) {
            Ok(Format::Parquet) => println!("parquet is not for terminals: use --output"),
            Ok(format) => shower.format = format,
            Err(_) => println!("formats are table, csv, json and jsonl"),
        },
        "rows" => match rest.parse() {
            Ok(0) => shower.max_rows = usize::MAX,
            Ok(n) => shower.max_rows = n,
            Err(_) => println!("say how many: \\rows 50"),
        },
        "f" => {
            let fits = engine.function_names().iter().filter(|n| n.contains(rest));
            println!("{}", fits.cloned().collect::<Vec<_>>().join(", "));
        }
        "d" | "dt" => describe(engine, rest).await,
        other => println!("there is no \\{other}: \\? lists what there is"),
    }
    true
}

async fn describe(engine: &Engine, name: &str) {
    let tables = match engine.tables().await {
        Ok(tables) => tables,
        Err(error) => return eprint!("{}", error.render("")),
    };
    let mut out = Table::new();
    out.load_preset(presets::NOTHING);
    if name.is_empty() {
        if tables.is_empty() {
            println!("there are no tables: name an archive (--archive URL) or files (--table NAME=PATH)");
        }
        for table in tables {
            let columns = crate::render::count(table.schema.fields().len(), "column");
            out.add_row([table.name, columns, table.origin]);
        }
    } else {
        let Some(table) = tables.iter().find(|t| t.name == name) else {
            let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
            let hint = nearest(name, &names).map(|n| format!(": did you mean `{n}`?")).unwrap_or_default();
            return println!("there is no table `{name}`{hint}");
        };
        for field in table.schema.fields() {
            let null = if field.is_nullable() { "" } else { "never null" };
            out.add_row([field.name().clone(), type_name(field.data_type()), null.to_owned()]);
        }
    }
    println!("{}", out.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>().join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_goes_on_until_its_semicolon() {
        assert!(is_whole("SELECT 1;"));
        assert!(!is_whole("SELECT 1"));
        assert!(is_whole("\\d"));
        assert!(is_whole(""));
    }

    #[test]
    fn names_complete_whatever_their_case() {
        let words = Words { all: vec!["SELECT".into(), "symbol".into(), "price".into()] };
        let history = FileHistory::new();
        let (start, fits) = words.complete("SELECT t.sy", 11, &Context::new(&history)).unwrap();
        assert_eq!((start, fits), (9, vec!["symbol".to_owned()]));
        assert_eq!(words.complete("sel", 3, &Context::new(&history)).unwrap().1, ["SELECT"]);
    }
}
