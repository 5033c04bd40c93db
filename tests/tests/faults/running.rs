//! The processes of one start of a job.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tidemill_tests::Rng;
use tidemill_tests::patience::hang_guard;

/// A launcher or a single process, at the head of a process group of its own.
pub struct Running {
    child: Child,
    /// When it was started.
    pub since: Instant,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).process_group(0);
        Self { child: command.spawn().unwrap(), since: Instant::now(), status: None }
    }

    /// Its status, once it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.status = self.status.or_else(|| self.child.try_wait().unwrap());
        self.status
    }

    /// Waits for its end, at most until so long after its start.
    pub fn until(&mut self, time: Duration) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.status() {
                return Some(status);
            }
            let left = time.saturating_sub(self.since.elapsed());
            if left.is_zero() {
                return None;
            }
            std::thread::sleep(left.min(Duration::from_millis(2)));
        }
    }

    /// Waits for its end; `None`: it hangs.
    pub fn end(&mut self) -> Option<ExitStatus> {
        let guard = hang_guard();
        loop {
            if let Some(status) = self.status() {
                return Some(status);
            }
            if guard.is_over() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to all of its processes.
    pub fn signal(&self, signal: &str) {
        send(signal, &format!("-{}", self.child.id()));
    }

    /// Kills all of its processes.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.status = self.status.or_else(|| self.child.wait().ok());
    }

    /// Kills the launcher alone; its members end when they see that.
    pub fn kill_launcher(&mut self) {
        let _ = self.child.kill();
        self.status = self.status.or_else(|| self.child.wait().ok());
    }

    /// Kills one of the processes that it has started; false where there is none.
    pub fn kill_member(&self, rng: &mut Rng) -> bool {
        let mut members: Vec<u32> = Vec::new();
        for task in
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten()
        {
            let listed = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            members.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        if members.is_empty() {
            return false;
        }
        let chosen = members[rng.within(0..members.len() as u64) as usize];
        send("KILL", &chosen.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }
}

fn send(signal: &str, to: &str) -> bool {
    let mut command = Command::new("kill");
    command.args(["-s", signal, "--", to]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether it ended by its own SIGABRT.
pub fn aborted(status: ExitStatus) -> bool {
    status.signal() == Some(6)
}
