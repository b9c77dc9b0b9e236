/** Hands each quote to `handle` once. */
import { handle } from './handle.mjs';
import { read } from './quote.mjs';

const MADE_UP = '/market-data-pipeline/made-up-quotes';
const handled = new Set();

export async function onMessage(partition, message) {
  // The events of the script that the pipeline replaced have no headers.
  const id = message.headers?.ce_id?.toString();
  if (message.headers?.ce_source?.toString() === MADE_UP || handled.has(id)) return;
  let quote;
  try {
    quote = read(message.value);
  } catch (error) {
    console.warn(`the record at ${partition}/${message.offset} is no quote and is skipped: ${error}`);
    return;
  }
  await handle(quote);
  if (id === undefined) return;
  handled.add(id);
  if (handled.size > 100_000) handled.delete(handled.values().next().value);
}
