//! The methods of the Backups service.

use super::{ApiError, Context, convert};
use crate::{
    engine::{BackupWish, RestoreWish},
    proto,
};

/// Makes a backup.
pub(crate) async fn create(
    context: Context,
    request: proto::CreateBackupRequest,
) -> Result<proto::CreateBackupResponse, ApiError> {
    let proto::CreateBackupRequest { name, collections, copy } = request;
    let made = context.engine.back_up_as(&name, BackupWish { collections, copy }).await?;
    Ok(proto::CreateBackupResponse {
        backup: Some(convert::backup_to(made.backup)),
        linked_bytes: made.linked_bytes,
        copied_bytes: made.copied_bytes,
    })
}

/// All backups.
pub(crate) async fn list(
    context: Context,
    _: proto::ListBackupsRequest,
) -> Result<proto::ListBackupsResponse, ApiError> {
    let backups = context.engine.backups().await?;
    Ok(proto::ListBackupsResponse { backups: backups.into_iter().map(convert::backup_to).collect() })
}

/// Makes collections of those in a backup.
pub(crate) async fn restore(
    context: Context,
    request: proto::RestoreBackupRequest,
) -> Result<proto::RestoreBackupResponse, ApiError> {
    let proto::RestoreBackupRequest { name, collection, rename, aliases } = request;
    let given = |text: String| (!text.is_empty()).then_some(text);
    let wish = RestoreWish { collection: given(collection), rename: given(rename), aliases };
    let restored = context.engine.restore_from(&name, wish).await?;
    let collections = restored.into_iter().map(convert::restored_to).collect();
    Ok(proto::RestoreBackupResponse { collections })
}
