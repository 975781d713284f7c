//! Carries a plan out around one cut: what was begun before it is undone after it, in any case.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::hooks::error::HookError;
use crate::hooks::plan::{HookPlan, PlannedHook};
use crate::hooks::session::{Answer, Guard, How, Outcome, run};
use crate::model::hook::OnError;
use crate::model::set::{Ordinal, SetName};
use crate::monitor::{Event, Monitor};
use crate::platform::{Ended, Platform};

/// The hooks of one backup, and how far they are.
pub struct Round<'a> {
    platform: &'a dyn Platform,
    monitor: &'a dyn Monitor,
    set: &'a SetName,
    plan: &'a HookPlan,
    /// Pods that may be held.
    begun: BTreeSet<Ordinal>,
    /// By place in the plan's `post`.
    guards: BTreeMap<usize, Guard>,
}

impl<'a> Round<'a> {
    pub fn new(platform: &'a dyn Platform, monitor: &'a dyn Monitor, set: &'a SetName, plan: &'a HookPlan) -> Self {
        Round { platform, monitor, set, plan, begun: BTreeSet::new(), guards: BTreeMap::new() }
    }

    /// Runs what comes before the cut, in order, until `stop` turns true: what is at work then is ended first. After an error
    /// [`Round::post`] is still to be called.
    pub async fn pre(&mut self, stop: &watch::Receiver<bool>) -> Result<(), HookError> {
        let plan = self.plan;
        for hook in &plan.pre {
            if *stop.borrow() {
                return Err(HookError::Interrupted);
            }
            if self.begun.insert(hook.ordinal) {
                self.guard(hook.ordinal).await?;
            }
            self.monitor.event(Event::Step(format!("running `{}` in {}", hook.words(), hook.pod)));
            let outcome = run(self.platform, self.set, hook, Some(stop)).await;
            self.judge(hook, false, outcome.map_err(HookError::from))?;
        }
        Ok(())
    }

    /// A guard for every command that lets the ordinal's application go, before anything holds it.
    async fn guard(&mut self, ordinal: Ordinal) -> Result<(), HookError> {
        let plan = self.plan;
        for (number, hook) in plan.post.iter().enumerate().filter(|(_, hook)| hook.ordinal == ordinal) {
            match Guard::plant(self.platform, self.set, hook).await {
                Ok(guard) => drop(self.guards.insert(number, guard)),
                Err(Ok(reason)) => {
                    let text = format!(
                        "no guard can be planted in pod {} (container {}): {reason}; if this program is killed, nobody runs `{}` there",
                        hook.pod,
                        hook.container,
                        hook.words()
                    );
                    self.monitor.event(Event::Warning(text));
                }
                Err(Err(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Runs what comes after the cut, all of it, whatever fails; the first failure is the error. Unless `cut` says that everything was held
    /// still, only where something was begun. Is not to be dropped halfway.
    pub async fn post(&mut self, cut: bool) -> Result<(), HookError> {
        let plan = self.plan;
        let mut first = Ok(());
        for (number, hook) in plan.post.iter().enumerate() {
            if !cut && !self.begun.contains(&hook.ordinal) {
                continue;
            }
            self.monitor.event(Event::Step(format!("running `{}` in {}", hook.words(), hook.pod)));
            let done = match self.guards.remove(&number) {
                Some(guard) => self.let_go(guard, hook).await,
                None => run(self.platform, self.set, hook, None).await.map_err(HookError::from),
            };
            match self.judge(hook, true, done) {
                Err(error) if first.is_ok() => first = Err(error),
                Err(error) => self.warn(&error),
                Ok(()) => {}
            }
        }
        self.begun.clear();
        first
    }

    async fn let_go(&self, guard: Guard, hook: &PlannedHook) -> Result<Outcome, HookError> {
        let how = match guard.let_go(hook.seconds).await {
            Answer::Told(outcome) => return Ok(outcome),
            Answer::Before(how) => how,
            Answer::Lost(how) => {
                // Once too often is better than never.
                match run(self.platform, self.set, hook, None)
                    .await
                    .map_err(HookError::from)
                    .and_then(|outcome| failure(&self.set.namespace, hook, true, outcome))
                {
                    Ok(()) => {}
                    Err(error) => self.warn(&error),
                }
                how
            }
        };
        Err(HookError::LetGo { hook: Box::new(hook.clone()), how })
    }

    fn judge(&self, hook: &PlannedHook, after: bool, done: Result<Outcome, HookError>) -> Result<(), HookError> {
        match done.and_then(|outcome| failure(&self.set.namespace, hook, after, outcome)) {
            // Whatever that command is worth, what was saved was not held still.
            Err(error @ (HookError::LetGo { .. } | HookError::Interrupted)) => Err(error),
            Err(error) if hook.on_error == OnError::Continue => {
                self.warn(&error);
                Ok(())
            }
            judged => judged,
        }
    }

    fn warn(&self, error: &HookError) {
        self.monitor.event(Event::Warning(error.to_string()));
    }
}

fn failure(namespace: &str, hook: &PlannedHook, after: bool, outcome: Outcome) -> Result<(), HookError> {
    let how = match outcome.how {
        How::Ended(Ended::Code(0)) => return Ok(()),
        How::Ended(Ended::Code(code)) => format!("ended with exit code {code}"),
        How::Ended(Ended::NotStarted(reason)) => format!("could not be started: {reason}"),
        How::Ended(Ended::Lost(reason)) => format!("was lost from sight: {reason}"),
        How::Interrupted => return Err(HookError::Interrupted),
        How::TimedOut => format!("did not end within {} s", hook.seconds),
    };
    Err(HookError::Failed { hook: Box::new(hook.clone()), namespace: namespace.to_owned(), after, how, said: outcome.said })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::platform::fake::Fake;

    #[derive(Default)]
    struct Listener(Mutex<Vec<String>>);

    impl Listener {
        fn warnings(&self) -> String {
            self.0.lock().unwrap().join("\n")
        }
    }

    impl Monitor for Listener {
        fn event(&self, event: Event) {
            if let Event::Warning(text) = event {
                self.0.lock().unwrap().push(text);
            }
        }
    }

    fn hook(ordinal: u32, command: &str, on_error: OnError) -> PlannedHook {
        PlannedHook {
            ordinal: Ordinal(ordinal),
            pod: format!("web-{ordinal}"),
            container: "db".into(),
            command: vec![command.into()],
            seconds: 30,
            on_error,
        }
    }

    fn two(pre: &str, on_error: OnError) -> HookPlan {
        HookPlan {
            pre: vec![hook(0, "hold", on_error), hook(1, pre, on_error)],
            post: vec![hook(0, "go", OnError::Fail), hook(1, "go", OnError::Fail), hook(2, "go", OnError::Fail)],
        }
    }

    fn set() -> SetName {
        "shop/web".parse().unwrap()
    }

    /// Commands end well, but for those that are named after how they end.
    fn fake() -> Fake {
        let end = |argv: &[String]| match argv.last().map(String::as_str) {
            Some("fails") => Some(Ended::Code(3)),
            Some("endless") => None,
            _ => Some(Ended::Code(0)),
        };
        Fake { commands: Some(Box::new(end)), ..Fake::default() }
    }

    /// The round's own errors, and what was run in which pods.
    async fn round(fake: &Fake, listener: &Listener, plan: &HookPlan) -> (Result<(), HookError>, Result<(), HookError>) {
        let set = set();
        let mut round = Round::new(fake, listener, &set, plan);
        let (_keep, stop) = watch::channel(false);
        let pre = round.pre(&stop).await;
        let post = round.post(pre.is_ok()).await;
        (pre, post)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_is_let_go_in_order_by_the_guards_that_waited_for_it() {
        let (fake, listener) = (fake(), Listener::default());
        let (pre, post) = round(&fake, &listener, &two("hold", OnError::Fail)).await;
        assert!(pre.is_ok() && post.is_ok(), "{pre:?} {post:?}");
        // Where nothing was held there is no guard, but the command is run all the same.
        let told = ["in web-0/db: hold", "in web-1/db: hold", "told in web-0/db: go", "told in web-1/db: go", "in web-2/db: go"];
        assert_eq!((fake.log(), listener.warnings()), (told.map(String::from).into(), String::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_lets_go_where_something_was_begun_and_nowhere_else() {
        for (command, expected) in [("fails", "ended with exit code 3: its last word"), ("endless", "did not end within 30 s")] {
            let (fake, listener) = (fake(), Listener::default());
            let (pre, post) = round(&fake, &listener, &two(command, OnError::Fail)).await;
            let error = pre.unwrap_err();
            assert!(error.to_string().starts_with("the pre hook of pod web-1 (container db) failed: `"), "{error}");
            assert!(error.to_string().contains(expected) && error.hint().unwrap().contains("onError"), "{error}");
            assert!(post.is_ok());
            assert_eq!(fake.log()[2..], ["told in web-0/db: go", "told in web-1/db: go"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_is_to_be_passed_over_is_told() {
        let (fake, listener) = (fake(), Listener::default());
        let (pre, post) = round(&fake, &listener, &two("fails", OnError::Continue)).await;
        assert!(pre.is_ok() && post.is_ok());
        assert!(listener.warnings().contains("exit code 3"));
    }

    #[tokio::test(start_paused = true)]
    async fn every_application_is_let_go_whatever_the_first_says_to_it() {
        let (fake, listener) = (fake(), Listener::default());
        let mut plan = two("hold", OnError::Fail);
        plan.post[0].command = vec!["fails".into()];
        let (_, post) = round(&fake, &listener, &plan).await;
        let error = post.unwrap_err();
        assert!(error.hint().unwrap().contains("kubectl exec --namespace shop web-0 --container db -- fails"), "{error}");
        assert!(fake.log().contains(&"told in web-1/db: go".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn guards_act_alone_when_the_round_is_dropped_and_tell_nobody() {
        let (fake, listener, set) = (fake(), Listener::default(), set());
        let plan = two("hold", OnError::Fail);
        let mut round = Round::new(&fake, &listener, &set, &plan);
        round.pre(&watch::channel(false).1).await.unwrap();
        drop(round);
        while fake.log().len() < 4 {
            tokio::task::yield_now().await;
        }
        let mut alone = fake.log().split_off(2);
        alone.sort();
        assert_eq!(alone, ["alone in web-0/db: go", "alone in web-1/db: go"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_that_was_let_go_too_early_is_an_error_and_is_let_go_once_more() {
        let (fake, listener, set) = (fake(), Listener::default(), set());
        let plan = two("hold", OnError::Continue);
        let mut round = Round::new(&fake, &listener, &set, &plan);
        round.pre(&watch::channel(false).1).await.unwrap();
        // The guards' connections break.
        for guard in round.guards.values_mut() {
            guard.cut_off();
        }
        let error = round.post(true).await.unwrap_err();
        assert!(error.to_string().contains("web-0 was let go before"), "{error}");
        assert_eq!(fake.log().iter().filter(|line| line.as_str() == "in web-0/db: go").count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_without_a_shell_has_no_guard_and_its_commands_are_run_all_the_same() {
        let fake = Fake { without_shell: true, ..fake() };
        let listener = Listener::default();
        let (pre, post) = round(&fake, &listener, &two("hold", OnError::Fail)).await;
        assert!(pre.is_ok() && post.is_ok(), "{pre:?} {post:?}");
        assert!(listener.warnings().contains("no guard can be planted in pod web-0 (container db): there is no sh"));
        assert_eq!(fake.log().iter().filter(|line| line.ends_with(": go")).count(), 3);
    }
}
