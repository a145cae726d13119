"""The tables of the state file, as numbered migrations."""

from __future__ import annotations

# Each migration runs once, in the transaction that also records it. Never change one that was released.
MIGRATIONS = (
    (
        "first",
        """
        CREATE TABLE source (
            account TEXT NOT NULL, app_id TEXT NOT NULL, bundle_id TEXT NOT NULL, build_id TEXT NOT NULL,
            digest BLOB NOT NULL, observed_at INTEGER NOT NULL, series INTEGER NOT NULL,
            PRIMARY KEY (account, app_id, build_id)
        ) WITHOUT ROWID;
        CREATE TABLE snapshot (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            account TEXT NOT NULL, app_id TEXT NOT NULL, build_id TEXT NOT NULL,
            stamp INTEGER NOT NULL, sent INTEGER NOT NULL, points INTEGER NOT NULL, body BLOB NOT NULL
        );
        CREATE INDEX snapshot_source ON snapshot (account, app_id, build_id);
        CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            account TEXT NOT NULL, app_id TEXT NOT NULL,
            stamp INTEGER NOT NULL, points INTEGER NOT NULL, body BLOB NOT NULL
        );
        CREATE TABLE window (
            account TEXT NOT NULL, app_id TEXT NOT NULL, series BLOB NOT NULL,
            content BLOB NOT NULL, ended_at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
            PRIMARY KEY (account, app_id, series)
        ) WITHOUT ROWID;
        CREATE TABLE request (key_id TEXT NOT NULL, at REAL NOT NULL);
        CREATE INDEX request_key ON request (key_id, at);
        CREATE TABLE attempt (
            account TEXT NOT NULL, app_id TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (account, app_id)
        ) WITHOUT ROWID;
        CREATE TABLE run (
            account TEXT PRIMARY KEY, at REAL NOT NULL, settings BLOB NOT NULL
        ) WITHOUT ROWID;
        """,
    ),
    (
        "diagnostics",
        """
        CREATE TABLE source_2 (
            account TEXT NOT NULL, app_id TEXT NOT NULL, build_id TEXT NOT NULL, kind TEXT NOT NULL,
            bundle_id TEXT NOT NULL, digest BLOB NOT NULL, observed_at INTEGER NOT NULL,
            series INTEGER NOT NULL, document BLOB,
            PRIMARY KEY (account, app_id, build_id, kind)
        ) WITHOUT ROWID;
        INSERT INTO source_2
            SELECT account, app_id, build_id, 'metrics', bundle_id, digest, observed_at, series, NULL
            FROM source;
        DROP TABLE source;
        ALTER TABLE source_2 RENAME TO source;
        ALTER TABLE snapshot ADD COLUMN kind TEXT NOT NULL DEFAULT 'metrics';
        DROP INDEX snapshot_source;
        CREATE INDEX snapshot_source ON snapshot (account, app_id, build_id, kind);
        ALTER TABLE outbox ADD COLUMN signal TEXT NOT NULL DEFAULT 'metrics';
        ALTER TABLE window ADD COLUMN kind TEXT NOT NULL DEFAULT 'metrics';
        CREATE TABLE finding (
            account TEXT NOT NULL, app_id TEXT NOT NULL, build_id TEXT NOT NULL, record TEXT NOT NULL
        );
        CREATE INDEX finding_source ON finding (account, app_id, build_id);
        CREATE TABLE signature (
            account TEXT NOT NULL, app_id TEXT NOT NULL, build_id TEXT NOT NULL, id TEXT NOT NULL,
            type TEXT NOT NULL, text TEXT NOT NULL, weight REAL,
            logged INTEGER NOT NULL DEFAULT 0, logged_weight REAL,
            PRIMARY KEY (account, app_id, build_id, id)
        ) WITHOUT ROWID;
        CREATE TABLE build (
            account TEXT NOT NULL, app_id TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
            place INTEGER NOT NULL, record TEXT NOT NULL,
            PRIMARY KEY (account, app_id, kind, id)
        ) WITHOUT ROWID;
        CREATE TABLE log (
            account TEXT NOT NULL, app_id TEXT NOT NULL, identity BLOB NOT NULL,
            build_id TEXT NOT NULL, seen_at INTEGER NOT NULL,
            PRIMARY KEY (account, app_id, identity)
        ) WITHOUT ROWID;
        CREATE TABLE observation (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            account TEXT NOT NULL, app_id TEXT NOT NULL, metric TEXT NOT NULL, attributes TEXT NOT NULL,
            value REAL NOT NULL
        );
        CREATE TABLE problem (
            account TEXT NOT NULL, app_id TEXT NOT NULL, platform TEXT NOT NULL, problem TEXT NOT NULL,
            first_version TEXT NOT NULL, last_version TEXT NOT NULL, seen_at INTEGER NOT NULL,
            PRIMARY KEY (account, app_id, platform, problem)
        ) WITHOUT ROWID;
        CREATE TABLE step (
            account TEXT NOT NULL, app_id TEXT NOT NULL, what TEXT NOT NULL, id TEXT NOT NULL,
            asked_at REAL, waits_since REAL, refused_at REAL,
            PRIMARY KEY (account, app_id, what, id)
        ) WITHOUT ROWID;
        INSERT INTO step SELECT account, app_id, 'metrics', '', at, NULL, NULL FROM attempt;
        DROP TABLE attempt;
        """,
    ),
    (
        "costs",
        """
        ALTER TABLE step ADD COLUMN cost INTEGER NOT NULL DEFAULT 1;
        ALTER TABLE step ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX outbox_signal ON outbox (signal);
        """,
    ),
    (
        "trouble",
        """
        CREATE TABLE trouble (
            account TEXT PRIMARY KEY, failed INTEGER NOT NULL, refused INTEGER NOT NULL
        ) WITHOUT ROWID;
        """,
    ),
)
