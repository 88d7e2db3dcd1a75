//! Refuses templates that do more than the budget can limit.
//!
//! The engine's budget counts a list by its items. Take a list of eight lists, each of which holds the same eight lists, and so on: it is
//! small in memory, and as a text it exceeds any memory. So templates use the lists of the message, and make only constant lists. The
//! operators and filters that nest or repeat lists are not available.

use minijinja::machinery::{Instruction, get_compiled_template};
use minijinja::{Environment, Template};

/// The available filters. A test compares docs/channels/webhook.md with them.
pub(in super::super) const FILTERS: [&str; 35] = [
    "abs",
    "attr",
    "bool",
    "capitalize",
    "default",
    "d",
    "dictsort",
    "escape",
    "e",
    "first",
    "float",
    "format",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "urlencode",
];

/// The engine's other filters. `map` and its like take the name of a filter as a text, so the engine must not have these filters at all.
const REMOVED: [&str; 14] = [
    // A template cannot switch escaping off.
    "safe", "batch", "chain", "count", "groupby", "items", "lines", "list", "pprint", "slice", "split",
    "string", "sum", "zip",
];

/// Removes the filters that are not available.
pub(super) fn remove_filters(environment: &mut Environment<'_>) {
    for name in REMOVED {
        environment.remove_filter(name);
    }
}

/// Refuses a template with a step that is not allowed.
///
/// # Errors
/// The fault, and the byte of the template.
pub(super) fn check(template: &Template<'_, '_>) -> Result<(), (String, Option<usize>)> {
    let instructions = &get_compiled_template(template).instructions;
    for index in 0_u32.. {
        let Some(instruction) = instructions.get(index) else {
            break;
        };
        if let Some(fault) = fault(instruction) {
            let span = instructions.get_span(index);
            return Err((fault, span.map(|span| span.start_offset as usize)));
        }
    }
    Ok(())
}

/// Returns the fault of a step. The match names each kind of step, so that it does not compile with a later engine that has more kinds.
fn fault(instruction: &Instruction<'_>) -> Option<String> {
    let words = match instruction {
        Instruction::Add => "`+` is not available; `~` joins texts",
        Instruction::Mul => "`*` is not available",
        Instruction::Pow => "`**` is not available",
        Instruction::BuildMap(_) | Instruction::BuildList(_) | Instruction::BuildTuple(_) => {
            "only constants may stand in a list, a map or a tuple"
        }
        Instruction::UnpackLists(_) | Instruction::MergeKwargs(_) => {
            "`*` and `**` are not available in arguments"
        }
        Instruction::CallFunction(..) | Instruction::CallMethod(..) | Instruction::CallObject(_) => {
            "nothing can be called: there are only filters, such as {{ name|upper }}"
        }
        Instruction::FastRecurse => "a loop cannot call itself",
        Instruction::ApplyFilter(name, ..) if !FILTERS.contains(name) => {
            return Some(format!("there is no filter {name}"));
        }
        Instruction::EmitRaw(_)
        | Instruction::Emit
        | Instruction::StoreLocal(_)
        | Instruction::Lookup(_)
        | Instruction::GetAttr(_)
        | Instruction::SetAttr(_)
        | Instruction::GetItem
        | Instruction::Slice
        | Instruction::LoadConst(_)
        | Instruction::BuildKwargs(_)
        | Instruction::UnpackList(_)
        | Instruction::Sub
        | Instruction::Div
        | Instruction::IntDiv
        | Instruction::Rem
        | Instruction::Neg
        | Instruction::Eq
        | Instruction::Ne
        | Instruction::Gt
        | Instruction::Gte
        | Instruction::Lt
        | Instruction::Lte
        | Instruction::Not
        | Instruction::StringConcat
        | Instruction::In
        | Instruction::CompareAndPreserve(_)
        | Instruction::ApplyFilter(..)
        | Instruction::PerformTest(..)
        | Instruction::PushLoop(_)
        | Instruction::PushWith
        | Instruction::Iterate(_)
        | Instruction::PushDidNotIterate
        | Instruction::PopFrame
        | Instruction::PopLoopFrame
        | Instruction::Jump(_)
        | Instruction::JumpIfFalse(_)
        | Instruction::JumpIfFalseOrPop(_)
        | Instruction::JumpIfTrueOrPop(_)
        | Instruction::PushAutoEscape
        | Instruction::PopAutoEscape
        | Instruction::BeginCapture(_)
        | Instruction::EndCapture
        | Instruction::DupTop
        | Instruction::DiscardTop
        | Instruction::Swap => return None,
    };
    Some(words.to_owned())
}
