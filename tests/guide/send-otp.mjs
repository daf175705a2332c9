// `sendOtp` of the provider's Node.js guide, letter by letter but for the types, the base URL, and that phone and code
// are given.
const API_KEY = process.env.NEXO_KEY;

export async function sendOtp(phone, code) {
  const res = await fetch(`${process.env.NEXO_BASE_URL}/send-otp`, {
    method: 'POST',
    headers: {
      'Authorization': `Bearer ${API_KEY}`,
      'Content-Type': 'application/json'
    },
    body: JSON.stringify({ phone, code })
  });

  const data = await res.json();

  if (!data.ok) {
    // Common errors: insufficient_balance, invalid_phone, no_route, ip_not_allowed
    throw new Error(`NEXO send failed: ${data.error}`);
  }
  return data;
}

// Usage
const result = await sendOtp(process.argv[2], process.argv[3]);
console.log(`Dispatched id=${result.id} via ${result.carrier}`);
console.log(`Charged $${result.cost}, wallet balance $${result.balance}`);
