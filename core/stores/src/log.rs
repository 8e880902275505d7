//! The event log: append-only, durable, one writer, numbers from 1 (S35).
//!
//! Invariants
//! - An append returns after its records are on the disk and the writer's token was found unchanged behind that.
//! - The next number is known without reading; an append costs the same with any number of records before it.
//! - A failed append leaves no record; one whose outcome is unknown makes the log refuse until it is opened again.
//! - Files below a newer one count only up to its first number, so what a fenced writer adds is never read.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meshfold_core::event::Event;

use crate::error::StoreError;
use crate::lease::{Lease, sync_directory};
use crate::place::Place;
use crate::record;
pub use crate::segment::SchemaMark;
use crate::segment::{self, NAME_BYTES_MAX, Segment};

/// A file is ended when it is at least this large.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Files of a log; one with more is refused before any of them is opened.
pub const SEGMENTS_MAX: usize = 65_536;
/// An append begins a file only below this number, so that writers that take over can always begin one.
const SEGMENTS_BEGUN_MAX: usize = SEGMENTS_MAX - 1024;
/// Records of one append: they are acknowledged together.
pub const APPEND_RECORDS_MAX: usize = 65_536;

/// How to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Read what is there; nothing is changed, a writer may be at work.
    Read,
    /// Write; refused while another writer lives.
    Write,
    /// Write although another writer may live; it is fenced.
    TakeOver,
}

struct Writer {
    lease: Lease,
    file: File,
    size: u64,
    failed: Option<String>,
}

/// An open log.
pub struct EventLog {
    directory: PathBuf,
    schema: SchemaMark,
    segments: Vec<Segment>,
    next: u64,
    writer: Option<Writer>,
    segment_bytes: u64,
    place: Option<Place>,
    /// Bytes cut off a torn tail when it was opened.
    pub torn_bytes: u64,
}

impl EventLog {
    /// Open or make a log of events of one schema.
    pub fn open(
        directory: &Path,
        schema: &SchemaMark,
        mode: Mode,
        segment_bytes: u64,
    ) -> Result<Self, StoreError> {
        if schema.name.len() > NAME_BYTES_MAX {
            let size = schema.name.len();
            return Err(StoreError::TooLarge("schema name", size, NAME_BYTES_MAX));
        }
        let lease = match mode {
            Mode::Read => None,
            Mode::Write | Mode::TakeOver => {
                fs::create_dir_all(directory).map_err(|error| StoreError::io(directory, &error))?;
                Some(Lease::take(directory, mode == Mode::TakeOver)?)
            }
        };
        let mut log = Self {
            directory: directory.into(),
            schema: schema.clone(),
            segments: segments(directory, schema, lease.is_some())?,
            next: 1,
            writer: None,
            segment_bytes,
            place: None,
            torn_bytes: 0,
        };
        log.find_end(lease)?;
        Ok(log)
    }

    /// Scan the newest file, cut its torn tail, and make ready to append.
    fn find_end(&mut self, lease: Option<Lease>) -> Result<(), StoreError> {
        let mut end = None;
        if let Some(last) = self.segments.last_mut() {
            let mut scanned = last.clone();
            let from = (last.first, last.data_at);
            end = Some(last.walk(from, u64::MAX, |head, _, offset| {
                scanned.mark(head.index, offset);
                true
            })?);
            *last = scanned;
        }
        self.next = end.map_or(1, |end| end.next);
        let Some(lease) = lease else { return Ok(()) };
        if self.next < lease.floor {
            let offset = end.map_or(0, |end| end.offset);
            let what = format!("records {} to {} are gone", self.next, lease.floor - 1);
            return Err(StoreError::Damaged(self.directory.clone(), offset, what));
        }
        let (file, size) = match end {
            // The old writer may be within a write: what it has not acknowledged is left alone, in its own file.
            Some(end) if !lease.took_over => {
                let path = &self.segments[self.segments.len() - 1].path;
                let io = |error: std::io::Error| StoreError::io(path, &error);
                let file = OpenOptions::new().append(true).open(path).map_err(io)?;
                if end.torn > 0 {
                    file.set_len(end.offset).map_err(io)?;
                    file.sync_all().map_err(io)?;
                    self.torn_bytes = end.torn;
                }
                (file, end.offset)
            }
            _ => self.begin_segment(lease.token)?,
        };
        self.writer = Some(Writer {
            lease,
            file,
            size,
            failed: None,
        });
        Ok(())
    }

    fn begin_segment(&mut self, token: u64) -> Result<(File, u64), StoreError> {
        let path = self.directory.join(segment::file_name(self.next, token));
        let head = segment::head(self.next, token, &self.schema);
        let create = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.set_len(0)?;
            file.write_all(&head)?;
            file.sync_all()?;
            sync_directory(&self.directory)?;
            Ok(file)
        };
        let made = create().map_err(|error| StoreError::io(&path, &error));
        if made.is_err() {
            // A file without a whole head holds nothing; if it cannot be removed, opening removes it.
            let _ = fs::remove_file(&path);
        }
        let file = made?;
        self.segments.push(Segment {
            path,
            first: self.next,
            token,
            data_at: head.len() as u64,
            marks: Vec::new(),
        });
        Ok((file, head.len() as u64))
    }

    /// Append events, durably, all or none; returns the number of the first.
    pub fn append(&mut self, events: &[Arc<Event>]) -> Result<u64, StoreError> {
        if events.len() > APPEND_RECORDS_MAX {
            return Err(StoreError::TooLarge(
                "append",
                events.len(),
                APPEND_RECORDS_MAX,
            ));
        }
        let Some(mut writer) = self.writer.take() else {
            return Err(StoreError::Closed(self.directory.clone()));
        };
        let done = self.append_with(&mut writer, events);
        self.writer = Some(writer);
        done
    }

    fn append_with(
        &mut self,
        writer: &mut Writer,
        events: &[Arc<Event>],
    ) -> Result<u64, StoreError> {
        if let Some(why) = &writer.failed {
            return Err(StoreError::Unsure(self.directory.clone(), why.clone()));
        }
        writer.lease.check()?;
        let first = self.next;
        let mut bytes = Vec::new();
        let mut starts = Vec::with_capacity(events.len());
        for (place, event) in events.iter().enumerate() {
            let start = bytes.len();
            starts.push(start as u64);
            let number = (first + place as u64, writer.lease.token, place as u32);
            record::encode(
                &mut bytes,
                event,
                number,
                (self.schema.id, self.schema.version),
            );
            let size = bytes.len() - start - record::HEAD_BYTES;
            if size > record::BODY_BYTES_MAX {
                return Err(StoreError::TooLarge("event", size, record::BODY_BYTES_MAX));
            }
        }
        if events.is_empty() {
            return Ok(first);
        }
        // Where there are as many files as may be, the last one goes on growing.
        if writer.size >= self.segment_bytes && self.segments.len() < SEGMENTS_BEGUN_MAX {
            (writer.file, writer.size) = self.begin_segment(writer.lease.token)?;
        }
        let last = self.segments.len() - 1;
        let path = self.segments[last].path.clone();
        if let Err(error) = writer.file.write_all(&bytes) {
            // Nothing of it was acknowledged: take the part back that was written.
            let undone = writer
                .file
                .set_len(writer.size)
                .and_then(|()| writer.file.sync_all());
            if let Err(error) = undone {
                writer.failed = Some(error.to_string());
            }
            return Err(StoreError::io(&path, &error));
        }
        if let Err(error) = writer.file.sync_data() {
            // After a failed fsync nobody can say what is on the disk, and the system goes on showing what it could not
            // write, as if it were there. So what was not acknowledged is cut off; opening reads what is left.
            let _ = writer.file.set_len(writer.size);
            writer.failed = Some(error.to_string());
            return Err(StoreError::Unsure(path, error.to_string()));
        }
        // Behind the write, or a newer writer could have begun in between without having seen it.
        if let Err(fenced) = writer.lease.check() {
            writer.failed = Some("a newer writer exists".into());
            return Err(fenced);
        }
        for (place, start) in starts.iter().enumerate() {
            self.segments[last].mark(first + place as u64, writer.size + start);
        }
        writer.size += bytes.len() as u64;
        self.next = first + events.len() as u64;
        Ok(first)
    }

    /// Records from number `from` on, in order, at most `max` of them and about `bytes`.
    pub fn read(
        &mut self,
        from: u64,
        max: usize,
        bytes: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        let mut out: Vec<(u64, Event)> = Vec::new();
        let mut size = 0;
        let mut bad = None;
        let mut wanted = from.max(self.first());
        let mut place = self.segments.partition_point(|s| s.first <= wanted);
        place = place.saturating_sub(1);
        while place < self.segments.len() && out.len() < max && size < bytes && bad.is_none() {
            let before = self
                .segments
                .get(place + 1)
                .map_or(self.next, |after| after.first);
            let current = self.segments[place].clone();
            let mut marks = current.clone();
            let end = current.walk(current.seek(wanted), before, |head, body, offset| {
                marks.mark(head.index, offset);
                if head.index < wanted {
                    return true;
                }
                let Some(event) = record::decode(body) else {
                    bad = Some(offset);
                    return false;
                };
                size += body.len();
                out.push((head.index, event));
                wanted = head.index + 1;
                out.len() < max && size < bytes
            })?;
            let stopped = out.len() >= max || size >= bytes || bad.is_some();
            if !stopped && end.next < before {
                let what = format!("records {} to {} are missing", end.next, before - 1);
                return Err(StoreError::Damaged(current.path, end.offset, what));
            }
            marks.marks.sort_unstable();
            self.segments[place].marks = marks.marks;
            place += 1;
        }
        match bad {
            Some(offset) => Err(StoreError::Damaged(
                self.directory.clone(),
                offset,
                "a record holds no event".into(),
            )),
            None => Ok(out),
        }
    }

    /// Forget whole files of records below `index`; returns the number of the oldest that is left.
    pub fn forget_before(&mut self, index: u64) -> Result<u64, StoreError> {
        while self.segments.len() > 1 && self.segments[1].first <= index {
            let path = &self.segments[0].path;
            fs::remove_file(path).map_err(|error| StoreError::io(path, &error))?;
            self.segments.remove(0);
        }
        sync_directory(&self.directory).map_err(|error| StoreError::io(&self.directory, &error))?;
        Ok(self.first())
    }

    /// The first record that the reader of an earlier life had not worked off, as far as it could be kept.
    pub fn left_at(&mut self) -> Result<u64, StoreError> {
        if self.place.is_none() {
            let range = (self.first(), self.next);
            let place = Place::open(&self.directory, self.token(), range);
            self.place = Some(place.map_err(|error| StoreError::io(&self.directory, &error))?);
        }
        Ok(self.place.as_ref().map_or(self.first(), Place::number))
    }

    /// Keep for the next life that all records below `number` are worked off; `durable` waits for the disk.
    pub fn keep_place(&mut self, number: u64, durable: bool) -> Result<(), StoreError> {
        match &mut self.place {
            Some(place) => place
                .keep(number, durable)
                .map_err(|error| StoreError::io(&self.directory, &error)),
            None => Ok(()),
        }
    }

    /// Number of the oldest record that is kept.
    pub fn first(&self) -> u64 {
        self.segments.first().map_or(1, |segment| segment.first)
    }

    /// Number the next record gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The writer's fencing token; 0 for a reader.
    pub fn token(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.lease.token)
    }

    /// What it holds.
    pub fn schema(&self) -> &SchemaMark {
        &self.schema
    }

    /// Give the lease back, noting what was acknowledged. Reading goes on. Idempotent.
    pub fn close(&mut self) -> Result<(), StoreError> {
        match self.writer.take() {
            Some(writer) if writer.failed.is_none() => {
                match writer.lease.give_back(self.next) {
                    // The newer writer keeps its own note; there is nothing to give back.
                    Err(StoreError::Fenced(..)) => Ok(()),
                    done => done,
                }
            }
            _ => Ok(()),
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        // Nobody is left to tell; without the note the next opening judges the tail by its bytes alone.
        let _ = self.close();
    }
}

/// The files of a log, oldest first; another schema is refused, a file that was never finished is removed by a writer.
fn segments(
    directory: &Path,
    schema: &SchemaMark,
    writes: bool,
) -> Result<Vec<Segment>, StoreError> {
    let io = |error: &std::io::Error| StoreError::io(directory, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| io(&error))? {
        let path = entry.map_err(|error| io(&error))?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        if paths.len() == SEGMENTS_MAX {
            return Err(StoreError::TooMany(directory.into(), SEGMENTS_MAX));
        }
        paths.push(path);
    }
    let mut out = Vec::new();
    for path in paths {
        let Some((segment, found)) = segment::open(&path)? else {
            if writes {
                fs::remove_file(&path).map_err(|error| StoreError::io(&path, &error))?;
            }
            continue;
        };
        if (found.id, found.version) != (schema.id, schema.version) {
            return Err(StoreError::Schema(
                path,
                found.id,
                found.version,
                found.name,
            ));
        }
        out.push(segment);
    }
    out.sort_by_key(|segment| (segment.first, segment.token));
    // A file that a newer one begins at the same number as holds nothing that counts.
    let firsts: Vec<u64> = out.iter().map(|segment| segment.first).collect();
    let mut place = 0;
    out.retain(|segment| {
        place += 1;
        firsts.get(place) != Some(&segment.first)
    });
    Ok(out)
}
