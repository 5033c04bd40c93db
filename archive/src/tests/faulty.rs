//! A store in memory that counts what is asked of it, and fails from the n-th change on.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

#[derive(Debug)]
pub struct Faulty {
    inner: InMemory,
    /// Changes that still go well; below 0 all fail.
    left: AtomicI64,
    /// Whether the first change to fail is made, and only its answer is lost.
    silent: AtomicI64,
    lists: AtomicUsize,
    gets: AtomicUsize,
    gets_of_log: AtomicUsize,
}

impl Default for Faulty {
    fn default() -> Self {
        Self {
            inner: InMemory::new(),
            left: AtomicI64::new(i64::MAX),
            silent: AtomicI64::new(0),
            lists: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            gets_of_log: AtomicUsize::new(0),
        }
    }
}

impl Faulty {
    /// After `n` more changes the process is as good as dead. `made`: the one that fails first is made.
    pub fn fail_after(&self, n: i64, made: bool) {
        self.silent.store(i64::from(made), Ordering::SeqCst);
        self.left.store(n, Ordering::SeqCst);
    }

    /// All is well again; whether it had come to a failure.
    pub fn mend(&self) -> bool {
        self.left.swap(i64::MAX, Ordering::SeqCst) < 0
    }

    pub fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }

    pub fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }

    /// How many files of a log have been read since the last time this was asked.
    pub fn gets_of_log(&self) -> usize {
        self.gets_of_log.swap(0, Ordering::SeqCst)
    }

    /// Whether this change is made, and whether its answer comes.
    fn change(&self) -> (bool, bool) {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        match left {
            1.. => (true, true),
            0 => (self.silent.load(Ordering::SeqCst) == 1, false),
            _ => (false, false),
        }
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the connection is gone".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (made, answered) = self.change();
        if made {
            let put = self.inner.put_opts(path, payload, opts).await?;
            if answered {
                return Ok(put);
            }
        }
        Err(lost())
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !self.change().1 {
            return Err(lost());
        }
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        if path.as_ref().contains("_tidemill") {
            self.gets_of_log.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if !self.change().1 {
            return futures::stream::once(async { Err(lost()) }).boxed();
        }
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
