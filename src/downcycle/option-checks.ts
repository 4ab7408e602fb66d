/** The law that a token cannot pass through more experts than there are; for every method. */
export const choosable = {
  check: ({experts, topK}: {experts: number; topK: number}): boolean => topK <= experts,
  says: {error: 'topK must be at most experts. Lower topK or raise experts.', path: ['topK']},
};
