//! Buffers: which steps share memory.

use super::layout::Root;
use super::step::{Home, Kind, Memory, Place, RootInfo, Stage, Step, View};

/// Places of all roots, and the widths of the buffers, of the request's stage and of the pairs'.
#[derive(Debug, Default)]
pub struct Places {
    pub places: Vec<Place>,
    pub request: Vec<usize>,
    pub pair: Vec<usize>,
}

/// The root whose rows this one's lie in, and where in them.
pub fn outermost(roots: &[RootInfo], root: Root) -> View {
    let mut view = View { root, from: 0 };
    while let Home::Within(outer) = &roots[view.root.0].home {
        view = View {
            root: outer.root,
            from: outer.from + view.from,
        };
    }
    view
}

/// Whether a step would read what lies in the rows it writes; copies may.
pub fn clashes(roots: &[RootInfo], steps: &[Step], outer: Root) -> bool {
    let inside = |root: Root| outermost(roots, root).root == outer;
    steps.iter().any(|step| {
        let writes = step.out.is_some_and(inside);
        writes && !matches!(step.kind, Kind::Copy(_)) && step.reads().into_iter().any(inside)
    })
}

/// Gives every root a place. Buffers of pairs are used again when nobody needs what is in them.
pub fn assign(roots: &[RootInfo], steps: &[Step], kept: &[Root]) -> Places {
    let mut places = Places::default();
    let lives = lives(roots, steps, kept);
    let mut buffers: Vec<Option<usize>> = vec![None; roots.len()];
    // When the buffer is free again.
    let mut busy: Vec<usize> = Vec::new();
    let mut owners: Vec<usize> = (0..roots.len())
        .filter(|root| matches!(roots[*root].home, Home::Own))
        .collect();
    owners.sort_by_key(|root| lives[*root].0);
    for root in owners {
        let info = &roots[root];
        let (first, last) = lives[root];
        if info.stage == Stage::Request {
            buffers[root] = Some(places.request.len());
            places.request.push(info.width);
            continue;
        }
        // The one that would grow least, then the one that wastes least.
        let free = (0..busy.len()).filter(|buffer| busy[*buffer] < first);
        let buffer = free.min_by_key(|buffer| {
            let width = places.pair[*buffer];
            (info.width.saturating_sub(width), width)
        });
        let buffer = buffer.unwrap_or_else(|| {
            places.pair.push(0);
            busy.push(0);
            busy.len() - 1
        });
        places.pair[buffer] = places.pair[buffer].max(info.width);
        busy[buffer] = last;
        buffers[root] = Some(buffer);
    }
    let place = |root: usize| {
        let view = outermost(roots, Root(root));
        let outer = &roots[view.root.0];
        Place {
            stage: roots[root].stage,
            from: view.from,
            stride: if matches!(outer.home, Home::Constant(_)) {
                0
            } else {
                outer.width
            },
            memory: match &outer.home {
                Home::Input(input) => Memory::Input(*input),
                Home::Slot(id) => Memory::Slot(*id),
                Home::Constant(tensor) => Memory::Constant(tensor.clone()),
                Home::Own | Home::Within(_) => Memory::Buffer(buffers[view.root.0].unwrap_or(0)),
            },
        }
    };
    places.places = (0..roots.len()).map(place).collect();
    places
}

/// The first and the last step that touches each outermost root.
fn lives(roots: &[RootInfo], steps: &[Step], kept: &[Root]) -> Vec<(usize, usize)> {
    let mut lives = vec![(usize::MAX, 0); roots.len()];
    let mut touch = |root: Root, at: usize| {
        let (first, last) = &mut lives[outermost(roots, root).root.0];
        *first = (*first).min(at);
        *last = (*last).max(at);
    };
    for (at, step) in steps.iter().enumerate() {
        step.reads()
            .into_iter()
            .chain(step.out)
            .for_each(|root| touch(root, at));
    }
    kept.iter().for_each(|root| touch(*root, steps.len()));
    lives
}
