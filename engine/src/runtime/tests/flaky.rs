//! A store in memory with the faults of real ones: it fails for a while, loses answers, or ignores conditions.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

#[derive(Debug, Default)]
pub struct Flaky {
    inner: InMemory,
    /// Calls that fail from now on.
    pub failures: AtomicI64,
    /// Puts that are made though they seem to fail.
    pub lost_answers: AtomicI64,
    /// Puts overwrite whatever they were asked.
    pub unconditional: AtomicBool,
}

impl Flaky {
    fn call(&self) -> Result<()> {
        match self.failures.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => Err(lost()),
            false => Ok(()),
        }
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "flaky", source: "the connection is gone".into() }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.call()?;
        let opts = if self.unconditional.load(Ordering::SeqCst) { PutOptions::default() } else { opts };
        let put = self.inner.put_opts(path, payload, opts).await;
        match self.lost_answers.fetch_sub(1, Ordering::SeqCst) > 0 {
            true => Err(lost()),
            false => put,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.call()?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.call() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
