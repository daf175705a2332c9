INSERT INTO deliveries (id, phone, carrier, status, cost, error_code, created_at, completed_at, raw)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (id) DO UPDATE SET
    status = EXCLUDED.status, cost = EXCLUDED.cost, error_code = EXCLUDED.error_code,
    completed_at = EXCLUDED.completed_at, raw = EXCLUDED.raw, received_at = now()
WHERE deliveries.status = 'sent'
