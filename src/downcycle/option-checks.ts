interface Counts {
  readonly experts: number;
  readonly topK: number;
}

/** The law that a token cannot pass through more experts than there are; for every method. */
export const choosable = {
  check: ({experts, topK}: Counts): boolean => topK <= experts,
  says: {
    error: ({input}: {readonly input?: unknown}): string => {
      const {experts, topK} = input as Counts;
      return `topK (= ${topK}) must be at most experts (= ${experts}). Lower topK or raise experts.`;
    },
    path: ['topK'],
  },
};
