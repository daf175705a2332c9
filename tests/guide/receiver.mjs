// The receiver of the provider's Node.js guide, letter by letter but for what TypeScript needs, the port that it is given
// or takes, and tells, and the last line.
import crypto from 'node:crypto';
import express from 'express';

const app = express();
const WEBHOOK_SECRET = process.env.NEXO_WEBHOOK_SECRET;

// SHA-256 of your plaintext secret (we only store the hash on our side)
const secretKey = crypto.createHash('sha256').update(WEBHOOK_SECRET).digest();

app.post('/webhooks/nexo', express.raw({ type: 'application/json' }), (req, res) => {
  const sig = req.header('X-NEXO-Signature') ?? '';
  const expected = 'sha256=' + crypto
    .createHmac('sha256', secretKey)
    .update(req.body)
    .digest('hex');

  // Timing-safe comparison
  if (sig.length !== expected.length ||
      !crypto.timingSafeEqual(Buffer.from(sig), Buffer.from(expected))) {
    return res.status(401).send('bad signature');
  }

  const event = JSON.parse(req.body.toString());
  console.log(`OTP ${event.id} → ${event.status}`);
  // event = { type, id, phone, carrier, status, cost, error_code, created_at, completed_at }
  res.status(200).send('ok');
});

const server = app.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => console.log(server.address().port));

// Ends with whoever started it.
process.stdin.resume().on('end', () => process.exit());
