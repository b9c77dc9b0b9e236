/** What is done with a quote: put your own code here. It throws if it could not be done. */
import { appendFile } from 'node:fs/promises';

const file = process.env.PRICES_FILE ?? 'prices.tsv';

export async function handle({ ticker, price, updatedAt, shortName }) {
  await appendFile(file, [ticker, price, updatedAt.toISOString(), shortName].join('\t') + '\n');
}
