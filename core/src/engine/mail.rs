//! Mailboxes as edges: what comes in, what sinks take, what goes to the poison route and to the disk.

use std::sync::Arc;

use super::{Engine, Kind, Step};
use crate::event::Event;
use crate::mailbox::Mailbox;
use crate::operator::Item;
use crate::value::Value;

/// The member that a connected sink is of its group.
const SINK_MEMBER: &str = "sink";

/// A mailbox and where it leads.
pub struct Mail {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// Groups whose entries become events of a route at once, and the member that each is.
    pub sinks: Vec<(String, String, usize)>,
    /// Where goes what no consumer could take.
    pub poison: Option<usize>,
    turn: usize,
    joined: usize,
}

impl Mail {
    /// A mailbox that nobody reads yet.
    pub fn new(mailbox: Mailbox, poison: Option<usize>) -> Self {
        Self {
            mailbox,
            sinks: Vec::new(),
            poison,
            turn: 0,
            joined: 0,
        }
    }
}

impl Engine {
    /// The mailbox of an edge.
    pub fn mail(&mut self, id: u32) -> Option<&mut Mail> {
        match self.edges.get_mut(&id).map(|edge| &mut edge.kind) {
            Some(Kind::Mail(mail)) => Some(mail),
            _ => None,
        }
    }

    /// An event arrives at a mailbox.
    pub(super) fn post(&mut self, id: u32, event: &Arc<Event>) {
        let now = self.now;
        let Some(mail) = self.mail(id) else { return };
        let bytes = event.payload.as_ref().map_or(0, |payload| payload.len());
        if mail.mailbox.spills(bytes) {
            mail.mailbox.offer_apart(event);
            self.spills.push_back((id, event.clone()));
            return;
        }
        let stored = mail.mailbox.offer(event.clone(), now, true);
        self.announce(id, stored);
    }

    fn announce(&mut self, id: u32, stored: bool) {
        let Some(mail) = self.mail(id).filter(|_| stored) else {
            return;
        };
        let sinks = !mail.sinks.is_empty();
        let deadline = mail.mailbox.deadline();
        if sinks {
            self.mail.push_back(id);
        } else {
            self.wakes.push_back(id);
        }
        self.due = self.due.min(deadline.unwrap_or(i64::MAX));
    }

    /// Let the entries of a mailbox's group become events of a route, from the next turn on; returns the member.
    pub fn add_sink(&mut self, id: u32, group: &str, route: usize) -> Result<String, String> {
        let Some(mail) = self.mail(id) else {
            return Err("the mailbox is closed".into());
        };
        mail.joined += 1;
        let member = format!("{SINK_MEMBER} {}", mail.joined);
        mail.mailbox.join(group, &member)?;
        mail.sinks.push((group.into(), member.clone(), route));
        self.mail.push_back(id);
        Ok(member)
    }

    /// A sink is taken off.
    pub fn remove_sink(&mut self, id: u32, member: &str) {
        let now = self.now;
        let Some(mail) = self.mail(id) else { return };
        if let Some(place) = mail.sinks.iter().position(|sink| sink.1 == member) {
            let (group, member, _) = mail.sinks.remove(place);
            mail.mailbox.leave(&group, &member, now);
        }
    }

    /// Give one entry of a mailbox to one of its sinks. None where there is nothing more to give.
    pub(super) fn deliver_mail(&mut self) -> Option<Step> {
        while let Some(id) = self.mail.front().copied() {
            let now = self.now;
            let Some(mail) = self.mail(id) else {
                self.mail.pop_front();
                continue;
            };
            if mail.mailbox.spilled > 0 && mail.mailbox.fits(0) {
                return Some(Step::Refill(id));
            }
            let mut taken = None;
            for _ in 0..mail.sinks.len() {
                // By turns, so that no sink starves where they share a group.
                let place = mail.turn % mail.sinks.len();
                mail.turn = mail.turn.wrapping_add(1);
                let (group, member, route) = &mail.sinks[place];
                if let Some(delivery) = mail.mailbox.receive(group, member, now) {
                    mail.mailbox.ack(delivery.ticket);
                    taken = Some((delivery.event, *route));
                    break;
                }
            }
            let Some((event, route)) = taken else {
                self.mail.pop_front();
                continue;
            };
            let name = self.edges[&id].name.as_str().into();
            let mut item = Item::enter(&event, Value::None, 0);
            item.ingest = item.ingest.max(now);
            if !self.within(id, route, item.taints) {
                continue;
            }
            let made = self.derive(route, item, event.payload.clone(), name);
            self.input.push_back((route, made));
            return None;
        }
        None
    }

    /// The host has kept an event of a mailbox on disk, or could not.
    pub fn spilled(&mut self, id: u32, event: &Event, kept: bool) {
        if let Some(mail) = self.mail(id) {
            mail.mailbox.spill(event, kept);
        }
        if kept {
            self.announce(id, true);
        } else {
            self.fail(id, "an event could not be kept on disk".into());
        }
    }

    /// An event of a mailbox is back from the disk, where it is the record of that number.
    pub fn refill(&mut self, id: u32, event: Arc<Event>, record: u64) {
        let now = self.now;
        if let Some(mail) = self.mail(id) {
            let stored = mail.mailbox.back(event, record, now);
            self.announce(id, stored);
        }
    }

    /// What a mailbox has on disk cannot be brought back now: its sinks go on when something else comes.
    pub fn give_up_refill(&mut self, id: u32) {
        self.mail.retain(|waiting| *waiting != id);
    }

    /// After a consumer did something: send what is poisoned on, and look who can go on.
    pub fn settle_mail(&mut self, id: u32) {
        let Some(mail) = self.mail(id) else { return };
        let poison = mail.poison;
        let poisoned: Vec<_> = mail.mailbox.poisoned.drain(..).collect();
        let deadline = mail.mailbox.deadline();
        self.due = self.due.min(deadline.unwrap_or(i64::MAX));
        self.wakes.push_back(id);
        for lost in poisoned {
            let why = format!("{} poison: {}", self.name(id), lost.reason);
            if let Some(route) = poison {
                let item = Item::enter(&lost.event, Value::None, 0);
                let name: Arc<str> = why.as_str().into();
                if self.within(id, route, item.taints) {
                    let made = self.derive(route, item, lost.event.payload.clone(), name.clone());
                    self.input.push_back((route, made));
                }
            }
            self.fail(id, why);
        }
    }

    pub(super) fn mail_deadlines(&self) -> impl Iterator<Item = i64> + '_ {
        self.edges.values().filter_map(|edge| match &edge.kind {
            Kind::Mail(mail) => mail.mailbox.deadline(),
            _ => None,
        })
    }

    /// Let leases run out.
    pub(super) fn tick_mail(&mut self, now: i64) {
        let due: Vec<u32> = self
            .edges
            .iter()
            .filter(|(_, edge)| match &edge.kind {
                Kind::Mail(mail) => mail.mailbox.deadline().is_some_and(|at| at <= now),
                _ => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(mail) = self.mail(id) {
                mail.mailbox.tick(now);
            }
            self.settle_mail(id);
        }
    }
}
