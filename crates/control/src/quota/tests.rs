//! Accounting of budgets: examples, programs against a model, and threads.

use std::collections::HashMap;

use proptest::prelude::*;
use warren_types::{ApiKeyId, Budget, SandboxId, TeamId, Usage};

use super::*;

fn claim(team: TeamId, key: Option<ApiKeyId>) -> Claim {
    Claim {
        team,
        key,
        cpus: 2,
        memory_mib: 512,
        disk_mib: 100,
    }
}

fn limited(sandboxes: u32) -> Arc<Quota> {
    let budget = Budget {
        sandboxes: Some(sandboxes),
        ..Budget::default()
    };
    Arc::new(Quota::new(budget, Budget::default()))
}

fn count(quota: &Quota, team: TeamId) -> u64 {
    quota.used(Subject::Team(team)).sandboxes
}

#[test]
fn a_place_is_freed_by_a_failed_start_and_by_the_end() {
    let (quota, team) = (limited(2), TeamId::random());
    let ask = claim(team, None);
    let first = quota.reserve(ask).unwrap();
    let second = quota.reserve(ask).unwrap();
    assert!(quota.reserve(ask).is_err());
    drop(second);
    let id = SandboxId::random();
    first.keep(id.clone(), 0);
    assert_eq!(count(&quota, team), 1);
    quota.release(&id);
    quota.release(&id);
    assert_eq!(quota.used(Subject::Team(team)), Usage::default());
}

#[test]
fn teams_do_not_share_places() {
    let quota = limited(1);
    let (a, b) = (claim(TeamId::random(), None), claim(TeamId::random(), None));
    let _place = quota.reserve(a).unwrap();
    assert!(quota.reserve(a).is_err());
    assert!(quota.reserve(b).is_ok());
}

#[test]
fn adopting_twice_counts_once() {
    let (quota, team, id) = (limited(1), TeamId::random(), SandboxId::random());
    quota.adopt(claim(team, None), id.clone(), 0);
    quota.adopt(claim(team, None), id, 0);
    assert_eq!(count(&quota, team), 1);
}

#[test]
fn a_late_word_of_a_pause_does_not_take_the_place_of_the_next_run() {
    let (quota, team, id) = (limited(2), TeamId::random(), SandboxId::random());
    let ask = claim(team, None);
    quota.reserve(ask).unwrap().keep(id.clone(), 0);
    quota.release_run(&id, 1);
    assert_eq!(count(&quota, team), 0);
    assert_eq!(quota.used(Subject::Team(team)).disk_mib, 100);
    quota.reserve_run(ask).unwrap().keep(id.clone(), 2);
    quota.release_run(&id, 1);
    assert_eq!(count(&quota, team), 1);
    quota.reserve_run(ask).unwrap().keep(id.clone(), 2);
    assert_eq!(count(&quota, team), 1, "no second place");
    quota.release_run(&id, 3);
    assert_eq!(count(&quota, team), 0);
    quota.adopt(ask, id, 2);
    assert_eq!(count(&quota, team), 0, "old news");
}

#[test]
fn a_key_has_a_budget_of_its_own() {
    let quota = limited(10);
    let (team, key) = (TeamId::random(), ApiKeyId::random());
    let tight = Budget {
        cpus: Some(3),
        ..Budget::default()
    };
    quota.set_own(Subject::Key(key), tight);
    let _held = quota.reserve(claim(team, Some(key))).unwrap();
    let refused = quota.reserve(claim(team, Some(key))).unwrap_err();
    assert_eq!(
        refused,
        OverBudget::Cpus {
            limit: 3,
            of_key: true
        }
    );
    assert!(
        quota.reserve(claim(team, None)).is_ok(),
        "the team has more"
    );
}

#[test]
fn each_limit_refuses_in_its_own_words() {
    let team = TeamId::random();
    let start = "you have reached the maximum number of concurrent E2B sandboxes (0)";
    for (budget, words) in [
        (r(|b| b.sandboxes = Some(0)), start),
        (r(|b| b.cpus = Some(1)), "1 CPUs"),
        (r(|b| b.memory_mib = Some(511)), "511 MiB of memory"),
        (r(|b| b.disk_mib = Some(99)), "99 MiB of disk"),
    ] {
        let quota = Arc::new(Quota::new(budget, Budget::default()));
        let refused = quota.reserve(claim(team, None)).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
        assert_eq!(quota.used(Subject::Team(team)), Usage::default());
    }
}

fn r(change: impl FnOnce(&mut Budget)) -> Budget {
    let mut budget = Budget::default();
    change(&mut budget);
    budget
}

/// A step of a program; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Reserve { team: usize, key: usize, size: u32 },
    Drop(usize),
    Keep(usize),
    Pause(usize),
    Resume(usize),
    End(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let reserve = (0..2_usize, 0..3_usize, 1..5_u32);
    prop_oneof![
        4 => reserve.prop_map(|(team, key, size)| Step::Reserve { team, key, size }),
        1 => any::<usize>().prop_map(Step::Drop),
        4 => any::<usize>().prop_map(Step::Keep),
        2 => any::<usize>().prop_map(Step::Pause),
        2 => any::<usize>().prop_map(Step::Resume),
        2 => any::<usize>().prop_map(Step::End),
        1 => Just(Step::Restart),
    ]
}

/// A start under way: what it holds, whether with the disk, and, of a resume, the sandbox and
/// the revision that its run will have.
type Starting = (Reservation, Claim, bool, Option<(SandboxId, u64)>);

/// What the accounting should come to, kept as plain lists.
#[derive(Default)]
struct Model {
    starting: Vec<Starting>,
    live: Vec<(SandboxId, Claim, bool, u64)>,
}

impl Model {
    fn used(&self, subject: Subject) -> Usage {
        let counts = |claim: &Claim| claim.subjects().any(|one| one == subject);
        let starting = self.starting.iter().filter(|(_, claim, ..)| counts(claim));
        let starting = starting.map(|(_, claim, whole, _)| match whole {
            true => claim.whole(),
            false => claim.run(),
        });
        let live = self.live.iter().filter(|(_, claim, ..)| counts(claim));
        let live = live.map(|(_, claim, runs, _)| match runs {
            true => claim.whole(),
            false => claim.disk(),
        });
        starting.chain(live).fold(Usage::default(), sum)
    }
}

fn pick<T>(list: &[T], index: usize) -> Option<usize> {
    (!list.is_empty()).then(|| index % list.len())
}

fn budgets() -> (Budget, Budget) {
    let team = Budget {
        sandboxes: Some(6),
        cpus: Some(12),
        memory_mib: Some(30),
        disk_mib: Some(60),
        requests_per_minute: None,
    };
    let key = Budget {
        sandboxes: Some(4),
        cpus: Some(9),
        ..Budget::default()
    };
    (team, key)
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (team_budget, key_budget) = budgets();
    let fresh = || Arc::new(Quota::new(team_budget, key_budget));
    let mut quota = fresh();
    let teams = [TeamId::random(), TeamId::random()];
    let keys = [ApiKeyId::random(), ApiKeyId::random()];
    let subjects = teams.map(Subject::Team).into_iter();
    let subjects: Vec<_> = subjects.chain(keys.map(Subject::Key)).collect();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Reserve { team, key, size } => {
                let claim = Claim {
                    team: teams[team],
                    // A key belongs to one team.
                    key: (key < 2).then(|| keys[team]),
                    cpus: size,
                    memory_mib: size * 3,
                    disk_mib: size * 5,
                };
                let fits = claim.subjects().all(|subject| {
                    let budget = quota.budget(subject);
                    let total = sum(model.used(subject), claim.whole());
                    over(total, claim.whole(), budget, false).is_ok()
                });
                let taken = quota.reserve(claim);
                prop_assert_eq!(taken.is_ok(), fits);
                if let Ok(taken) = taken {
                    model.starting.push((taken, claim, true, None));
                }
            }
            Step::Drop(index) => {
                if let Some(index) = pick(&model.starting, index) {
                    drop(model.starting.swap_remove(index));
                }
            }
            Step::Keep(index) => {
                if let Some(index) = pick(&model.starting, index) {
                    let (taken, claim, _, resumed) = model.starting.swap_remove(index);
                    let (id, revision) = resumed.unwrap_or((SandboxId::random(), 0));
                    taken.keep(id.clone(), revision);
                    match model.live.iter_mut().find(|(known, ..)| *known == id) {
                        Some(live) => (live.2, live.3) = (true, live.3.max(revision)),
                        // It ended while it was resumed; its end is told again.
                        None if revision > 0 => quota.release(&id),
                        None => model.live.push((id, claim, true, 0)),
                    }
                }
            }
            Step::Pause(index) => {
                if let Some(index) = pick(&model.live, index) {
                    let (id, _, runs, revision) = &mut model.live[index];
                    if *runs {
                        (*runs, *revision) = (false, *revision + 1);
                    }
                    quota.release_run(id, *revision);
                }
            }
            Step::Resume(index) => {
                if let Some(index) = pick(&model.live, index) {
                    let (id, claim, runs, revision) = model.live[index].clone();
                    let under_way = |(_, _, _, resumed): &Starting| {
                        resumed.as_ref().is_some_and(|(known, _)| *known == id)
                    };
                    if !runs
                        && !model.starting.iter().any(under_way)
                        && let Ok(taken) = quota.reserve_run(claim)
                    {
                        let resumed = Some((id, revision + 1));
                        model.starting.push((taken, claim, false, resumed));
                    }
                }
            }
            Step::End(index) => {
                if let Some(index) = pick(&model.live, index) {
                    let (id, ..) = model.live.swap_remove(index);
                    quota.release(&id);
                    quota.release(&id);
                }
            }
            Step::Restart => {
                // What was starting was in no row. Rows of paused ones are adopted, too, and
                // then compared with what the node tells.
                model.starting.clear();
                quota = fresh();
                for (id, claim, runs, revision) in &model.live {
                    quota.adopt(*claim, id.clone(), *revision);
                    if !runs {
                        quota.release_run(id, *revision);
                    }
                }
            }
        }
        for subject in &subjects {
            prop_assert_eq!(quota.used(*subject), model.used(*subject));
        }
    }
    model.starting.clear();
    for (id, ..) in model.live.drain(..) {
        quota.release(&id);
    }
    prop_assert!(quota.lock().used.is_empty(), "something leaked");
    Ok(())
}

proptest! {
    #[test]
    fn programs_come_to_what_a_plain_list_comes_to(
        steps in prop::collection::vec(step(), 0..120)
    ) {
        run(steps)?;
    }
}

#[test]
fn threads_never_exceed_a_limit_together_and_leak_nothing() {
    const LIMIT: u32 = 7;
    let (quota, team) = (limited(LIMIT), TeamId::random());
    let key = ApiKeyId::random();
    let most = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|seed: u64| {
                let quota = Arc::clone(&quota);
                scope.spawn(move || {
                    let mut kept: HashMap<u64, SandboxId> = HashMap::new();
                    let mut most = 0;
                    for turn in 0..2000 {
                        let word = (turn * 8 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
                        if let Ok(taken) = quota.reserve(claim(team, Some(key))) {
                            most = most.max(count(&quota, team));
                            if word < 8 {
                                let id = SandboxId::random();
                                taken.keep(id.clone(), 0);
                                kept.insert(turn, id);
                            }
                        }
                        if word >= 5
                            && let Some(turn) = kept.keys().next().copied()
                        {
                            quota.release(&kept.remove(&turn).unwrap());
                        }
                    }
                    for id in kept.into_values() {
                        quota.release(&id);
                    }
                    most
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .max()
            .unwrap()
    });
    assert!(most >= 1 && most <= u64::from(LIMIT), "{most}");
    assert!(quota.lock().used.is_empty());
    assert!(quota.lock().live.is_empty());
}
