// What a receiver does with an event, whichever framework brought it: check its signature, keep it.
import crypto from 'node:crypto';
import { readFileSync } from 'node:fs';
import pg from 'pg';

const key = crypto.createHash('sha256').update(process.env.NEXO_WEBHOOK_SECRET).digest();
const text = readFileSync(new URL('upsert.sql', import.meta.url), 'utf8');
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.POOL) });
pool.on('error', (error) => console.error(error));

export function isSigned(raw, signature = '') {
  const given = Buffer.from(signature);
  const expected = Buffer.from('sha256=' + crypto.createHmac('sha256', key).update(raw).digest('hex'));
  return given.length === expected.length && crypto.timingSafeEqual(given, expected);
}

// The statement has a name, so that each connection has it parsed and planned once.
export async function keep(raw) {
  const event = JSON.parse(raw);
  await pool.query({
    name: 'upsert',
    text,
    values: [
      event.id, event.phone, event.carrier, event.status, event.cost, event.error_code, event.created_at,
      event.completed_at, raw,
    ],
  });
}

// Ends with whoever started it.
process.stdin.resume().on('end', () => process.exit());
