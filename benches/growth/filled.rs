//! What a filled store holds, in SQL and in Rust alike: the n-th delivery's id, phone and time.

use nexo_receiver::{clock::Timestamp, delivery::DeliveryId, phone::Phone};

/// The day of the newest deliveries.
pub(crate) const LAST_DAY: &str = "2026-05-26T00:00:00Z";
/// In microseconds.
pub(crate) const DAY: i64 = 86_400_000_000;

/// Between one delivery and the next, in microseconds: a million a day.
const APART: i64 = DAY / 1_000_000;

/// Odd, so that n times it, modulo 2³², meets no number twice and is in no order.
const SCATTER: i64 = 2_654_435_761;

/// Rows `n` = 1…: the newest last; what is rare stands at the start, so that no scan from the newest finds it soon.
pub(crate) const POSTGRES: &str = "
    INSERT INTO deliveries SELECT
        (lpad(to_hex(n * SCATTER % 4294967296), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, NULL,
        '+8498' || lpad((n * 7919 % (ROWS / 5))::text, 7, '0'),
        CASE WHEN n <= 3 THEN 'rare' ELSE (ARRAY['viettel', 'vinaphone', 'mobifone', 'vietnamobile'])[1 + n % 4] END,
        CASE WHEN n <= 20 THEN 'sent' WHEN n % 16 = 0 THEN 'failed' ELSE 'delivered' END,
        CASE WHEN n <= 20 OR n % 16 = 0 THEN 0 ELSE 0.022 END,
        CASE WHEN n <= 3 THEN 'rare' WHEN n % 16 = 0 THEN (ARRAY['busy', 'no_answer', 'rejected'])[1 + n % 3] END,
        t, t + took, t + took, t, 'webhook', decode(repeat('00', 42), 'hex'), 'otp', sha256(n::text::bytea)
            || decode(repeat('2e', 198), 'hex'), sha256(''), 1
    FROM (SELECT n, timestamptz 'LAST_DAY' + interval '1 day' - (ROWS - n + 1) * interval 'APART microseconds' AS t,
        CASE WHEN FINE THEN 25000000 + n * 7919 % 35000000 ELSE (25 + n * 7919 % 35) * 1000000 END
            * interval '1 microsecond' AS took
        FROM generate_series(1::bigint, ROWS) AS n) AS rows;
    VACUUM ANALYZE;";

pub(crate) const SQLITE: &str = "
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -4000000;
    INSERT INTO deliveries SELECT
        printf('%08x-0000-4000-8000-%012x', n * SCATTER % 4294967296, n),
        '+8498' || substr('0000000' || (n * 7919 % (ROWS / 5)), -7),
        CASE WHEN n <= 3 THEN 'rare' ELSE
            CASE n % 4 WHEN 0 THEN 'viettel' WHEN 1 THEN 'vinaphone' WHEN 2 THEN 'mobifone' ELSE 'vietnamobile' END END,
        CASE WHEN n <= 20 THEN 'sent' WHEN n % 16 = 0 THEN 'failed' ELSE 'delivered' END,
        CASE WHEN n <= 20 OR n % 16 = 0 THEN '0' ELSE '0.022' END,
        CASE WHEN n <= 3 THEN 'rare' WHEN n % 16 = 0 THEN
            CASE n % 3 WHEN 0 THEN 'busy' WHEN 1 THEN 'no_answer' ELSE 'rejected' END END,
        t, t + took, t + took, t, 'webhook', zeroblob(42), 'otp', zeroblob(230), zeroblob(32), 1
    FROM (WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < ROWS)
        SELECT n, (unixepoch('LAST_DAY') + 86400) * 1000000 - (ROWS - n + 1) * APART AS t,
        CASE WHEN FINE THEN 25000000 + n * 7919 % 35000000 ELSE (25 + n * 7919 % 35) * 1000000 END AS took
        FROM series);
    ANALYZE;";

/// A store that was filled with [`POSTGRES`] or [`SQLITE`].
pub(crate) struct Filled {
    pub(crate) rows: i64,
    /// Whether durations are to the microsecond.
    pub(crate) fine: bool,
}

impl Filled {
    /// The statements that fill it.
    pub(crate) fn statements(&self, sql: &str) -> String {
        sql.replace("ROWS", &self.rows.to_string())
            .replace("SCATTER", &SCATTER.to_string())
            .replace("APART", &APART.to_string())
            .replace("LAST_DAY", LAST_DAY)
            .replace("FINE", if self.fine { "1 = 1" } else { "1 = 0" })
    }

    /// Any of its deliveries.
    pub(crate) fn some_id(&self) -> DeliveryId {
        let n = fastrand::i64(1..=self.rows);
        let id = format!("{:08x}-0000-4000-8000-{n:012x}", n * SCATTER % (1 << 32));
        DeliveryId::parse(id).unwrap()
    }

    /// Any of its phones: each has five deliveries.
    pub(crate) fn some_phone(&self) -> Phone {
        Phone::parse(&format!("+8498{:07}", fastrand::i64(0..self.rows / 5))).unwrap()
    }

    /// Any time from its first delivery to its last.
    pub(crate) fn some_time(&self) -> Timestamp {
        let end = Timestamp::parse(LAST_DAY).unwrap().micros() + DAY;
        Timestamp::from_micros(end - fastrand::i64(0..self.rows) * APART).unwrap()
    }
}
