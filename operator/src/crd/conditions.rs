//! Closed sets of condition types and reasons, with the text of their documentation.

use std::fmt;

/// Type of a condition of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The pool serves as declared.
    Ready,
    /// The operator or the cluster is on its way to `Ready`; there only while true.
    Reconciling,
    /// Nothing moves until a person acts; there only while true.
    Stalled,
    /// A front end of the declared version and configuration takes clients.
    FrontEndAvailable,
    /// The Back-End Database takes connections (Enterprise Edition).
    DatabaseAvailable,
    /// The database has the schema of the declared version (Enterprise Edition).
    SchemaCurrent,
    /// Clients are shown a certificate that is valid now.
    CertificatesValid,
    /// The pool's address is known and leads to a front end.
    VipServing,
    /// The pool has the users of the directory; there only with `directorySync`.
    DirectorySynced,
    /// `operations.paused` is set; there only while true.
    Paused,
}

impl ConditionType {
    /// All types, in the order of the status.
    pub const ALL: [Self; 10] = [
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
        Self::FrontEndAvailable,
        Self::DatabaseAvailable,
        Self::SchemaCurrent,
        Self::CertificatesValid,
        Self::VipServing,
        Self::DirectorySynced,
        Self::Paused,
    ];

    /// Its name in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::FrontEndAvailable => "FrontEndAvailable",
            Self::DatabaseAvailable => "DatabaseAvailable",
            Self::SchemaCurrent => "SchemaCurrent",
            Self::CertificatesValid => "CertificatesValid",
            Self::VipServing => "VipServing",
            Self::DirectorySynced => "DirectorySynced",
            Self::Paused => "Paused",
        }
    }

    /// One sentence for the documentation: what `True` says.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "The pool serves as declared.",
            Self::Reconciling => "The pool is on its way to Ready by itself. There only while true.",
            Self::Stalled => "Nothing moves until a person acts. There only while true.",
            Self::FrontEndAvailable => "A front end of the declared version and configuration takes clients.",
            Self::DatabaseAvailable => {
                "The Back-End Database takes connections; of an external one, that it did when the schema was brought up to date. Enterprise Edition only."
            }
            Self::SchemaCurrent => "The database has the schema of the declared version. Enterprise Edition only.",
            Self::CertificatesValid => "Clients are shown a certificate that is valid now.",
            Self::VipServing => "The pool's address is known and leads to a front end.",
            Self::DirectorySynced => {
                "The last run gave the pool the users of the directory. There only with `directorySync`; `Ready` does not depend on it."
            }
            Self::Paused => "`operations.paused` is set: only the status is written. There only while true.",
        }
    }

    /// Whether `True` is what one hopes to see.
    pub fn is_good(self) -> bool {
        !matches!(self, Self::Reconciling | Self::Stalled | Self::Paused)
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! reasons {
    ($($name:ident, [$($part:ident),+], $meaning:literal, $mend:literal;)+) => {
        /// Reason of a condition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)+
        }

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name in the status.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The conditions it belongs to; `Ready`, `Reconciling` and `Stalled` repeat it.
            pub fn conditions(self) -> &'static [ConditionType] {
                match self { $(Self::$name => &[$(ConditionType::$part),+],)+ }
            }

            /// What it says, one sentence for the documentation.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }

            /// What a person does about it; empty where nothing need be done.
            pub fn mend(self) -> &'static str {
                match self { $(Self::$name => $mend,)+ }
            }
        }
    };
}

reasons! {
    Serving, [Ready], "Everything is as declared.", "";
    Applying, [Reconciling], "Objects were written that have not been seen in effect yet.", "";
    Deleting, [Reconciling], "An object of the same name is still being deleted.", "Wait; if it lasts, look for finalizers on that object.";
    Invalid, [Stalled], "The resource says something that cannot be carried out.", "Change the field that the message names.";
    NameTaken, [Stalled], "An object of a name the pool needs belongs to somebody else.", "Delete or rename that object, or choose another name for the pool.";
    Forbidden, [Stalled], "The API server does not allow the operator a request.", "Install the operator's current roles, or mend the policy that the message names.";
    Refused, [Stalled], "The API server refuses an object.", "The message is the API server's own; it names the field.";
    CannotGrow, [Stalled], "The storage class does not let the volume grow.", "Set allowVolumeExpansion on the class, or set the size back in the field that the message names.";
    Available, [FrontEndAvailable, DatabaseAvailable], "It serves: a front end its clients, the database its front ends.", "";
    TooFew, [FrontEndAvailable], "Clients are served, by fewer front ends than declared.", "If it lasts, kubectl describe the pods that are not ready.";
    Held, [FrontEndAvailable], "Front ends stay as they are until what they wait for is done.", "DatabaseAvailable, SchemaCurrent and Stalled say what they wait for.";
    NotCreated, [FrontEndAvailable, DatabaseAvailable], "There is none yet.", "The Stalled condition says what it waits for, if it is not for the operator alone.";
    RollingOut, [FrontEndAvailable, DatabaseAvailable], "Pods are being replaced.", "";
    ImageMissing, [FrontEndAvailable, DatabaseAvailable, SchemaCurrent, DirectorySynced], "The node cannot get the image.", "Load the image that the message names into the nodes, or set spec.image.";
    Unschedulable, [FrontEndAvailable, DatabaseAvailable, SchemaCurrent, DirectorySynced], "No node takes the pod.", "The message is the scheduler's own.";
    VolumePending, [FrontEndAvailable, DatabaseAvailable], "The volume claim is not bound.", "Provide a volume, or a default storage class.";
    Crashing, [FrontEndAvailable, DatabaseAvailable], "The program ends soon after its start.", "Read the pod's log.";
    NotReady, [FrontEndAvailable, DatabaseAvailable, SchemaCurrent, DirectorySynced], "The pod starts, or does not answer its readiness probe.", "If it lasts, read the pod's log.";
    NotReached, [DatabaseAvailable], "Nothing has reached the external database yet.", "SchemaCurrent says what keeps it.";
    CredentialsMissing, [DatabaseAvailable], "A Secret that is needed to reach the external database, or a key of it, is not there.", "Make the Secret, or the key, that the message names.";
    AwaitingDatabase, [SchemaCurrent], "The migration waits for the database.", "See DatabaseAvailable.";
    Migrating, [SchemaCurrent], "The migration Job is at work.", "";
    MigrationFailed, [SchemaCurrent], "The last try of the migration failed; it is repeated, each time later.", "The message is the migration's own. After mending, kubectl delete the Job to have it repeated at once.";
    Migrated, [SchemaCurrent], "The migration Job of this version has completed.", "";
    SelfManaged, [CertificatesValid], "Issued by the pool's own authority.", "";
    GivenSecret, [CertificatesValid], "The named Secret holds a certificate that is valid now.", "";
    NoTlsListener, [CertificatesValid], "No listener needs a certificate.", "";
    NotIssued, [CertificatesValid], "The certificate is not issued yet.", "";
    SecretMissing, [CertificatesValid, DirectorySynced], "The named Secret, or a key of it, is not there. Front ends keep what they have; the CronJob starts nothing, and runs of a Standard Edition server fail.", "Make the Secret, or the key.";
    SecretMalformed, [CertificatesValid], "The named Secret holds no usable certificate and key. Front ends keep what they have.", "Mend the key that the message names.";
    Expired, [CertificatesValid], "The certificate is not valid at this time.", "Renew it.";
    AuthorityMalformed, [CertificatesValid], "The Secret of the pool's authority was changed and is no longer one.", "Put the Secret right from a copy; or delete it, and give all clients the new ca.crt.";
    Reachable, [VipServing], "The address leads to a front end.", "";
    AddressPending, [VipServing], "The Service has no address yet.", "If it lasts, see whether the cluster has load balancers; otherwise set spec.service.type.";
    NoReadyFrontEnd, [VipServing], "No front end takes clients.", "See FrontEndAvailable.";
    OutOfVip, [VipServing], "No ready front end carries the label commpool.dev/vip=in.", "Put the label back on the pods, or delete the pods.";
    Synced, [DirectorySynced], "The users are those of the directory, as of `status.directorySync.lastSuccess`.", "The message names entries that could not become users, if there are any.";
    NotRunYet, [DirectorySynced], "There was no run yet.", "Wait for the schedule, or start a run by hand.";
    Overdue, [DirectorySynced], "No run has ended for longer than two of the schedule and the longest run take; users stay as they are.", "Enterprise Edition: kubectl describe the CronJob and its newest Job, such as for a quota or admission rule. Standard Edition: read the front end's log.";
    Suspended, [DirectorySynced], "directorySync.suspend is set; users stay as they are.", "Set it to false.";
    DeletionHeld, [DirectorySynced], "Too many users would lose the service without the directory saying so of each, or their passwords by another address. Nothing was changed.", "Look at the plan. If it is meant, set directorySync.removal.releaseDigest to status.directorySync.planDigest; otherwise mend the directory, baseDN, filter or mapping.";
    Busy, [DirectorySynced], "Another run was active; this one did nothing.", "";
    DirectoryUnavailable, [DirectorySynced], "The directory cannot be reached, or does not prove who it is. Nothing was changed.", "The message names the server and the cause: address, network, certificate.";
    DirectoryRefused, [DirectorySynced], "The directory refuses the account or the search. Nothing was changed.", "Mend the account in ldap.bindSecret, its rights, baseDN or filter.";
    ReadIncomplete, [DirectorySynced], "The directory was not read to its end, or as if it had nobody. Nothing was changed.", "If it lasts, look at the directory, the account's rights, baseDN, filter and mapping.";
    StoreUnavailable, [DirectorySynced], "The pool's store cannot be reached, or refused.", "See DatabaseAvailable and SchemaCurrent.";
    ConfigurationInvalid, [DirectorySynced], "The configuration, or a file it names, cannot be used.", "Mend what the message names.";
    InternalError, [DirectorySynced], "Something that should not happen.", "Read the log of the run, and report it.";
    RunFailed, [DirectorySynced], "The last run ended without saying what it came to, such as for lack of memory. What it began was not done by halves.", "Read the pod's log; kubectl describe the pod.";
    NotAnswering, [DirectorySynced], "The front end does not tell the operator what its last run came to.", "See that the operator reaches the management port of the pod that the message names.";
    Paused, [Paused], "operations.paused is set.", "Set it to false.";
}

impl Reason {
    /// Whether only a person can end it: then `Stalled` says so, otherwise `Reconciling`.
    pub fn needs_person(self) -> bool {
        use Reason::*;
        matches!(
            self,
            Invalid
                | NameTaken
                | Forbidden
                | Refused
                | CannotGrow
                | CredentialsMissing
                | SecretMissing
                | SecretMalformed
                | Expired
                | AuthorityMalformed
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_named_as_kubernetes_demands() {
        for reason in Reason::ALL {
            let name = reason.as_str();
            assert!(name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
        }
    }

    #[test]
    fn what_needs_a_person_says_what_to_do() {
        for reason in Reason::ALL.iter().filter(|reason| reason.needs_person()) {
            assert!(!reason.mend().is_empty(), "{reason}");
        }
    }
}
