/** The price of an instrument, read from the value of an event. */
export function read(value) {
  const { ticker, name, short_name, price, volume, updated_at } = JSON.parse(value);
  // Either form: seconds or ISO 8601.
  const updatedAt = new Date(typeof updated_at === 'number' ? updated_at * 1000 : (updated_at ?? NaN));
  if (typeof ticker !== 'string' || typeof price !== 'number' || Number.isNaN(updatedAt.getTime())) {
    throw new TypeError(`${value} has no ticker, price or updated_at`);
  }
  return { ticker, name, shortName: short_name, price, volume, updatedAt };
}
