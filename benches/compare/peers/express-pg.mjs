// Express and pg: an upsert for each event.
import express from 'express';
import { isSigned, keep } from './receive.mjs';

const app = express();
app.disable('x-powered-by');
app.disable('etag');

app.post('/webhooks/nexo', express.raw({ type: 'application/json' }), async (req, res) => {
  if (!isSigned(req.body, req.get('x-nexo-signature'))) {
    return res.status(401).type('text').send('bad signature');
  }
  await keep(req.body);
  res.type('text').send('ok');
});

app.listen(Number(process.env.PORT), '127.0.0.1');
