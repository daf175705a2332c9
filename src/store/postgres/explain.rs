//! How the database goes about a question: for the tests and the bench that hold it to an index.

use sqlx::{Execute, Postgres as Db, QueryBuilder, Row};

use super::{Postgres, meaning, read, stats};
use crate::store::{StoreError, query::Question};

impl Postgres {
    /// The plan of a question's statement, line by line.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn explain(&self, question: Question<'_>) -> Result<Vec<String>, StoreError> {
        let plan = self.ask(explained(statement(question))).await?;
        plan.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(meaning)
    }
}

fn statement(question: Question<'_>) -> QueryBuilder<Db> {
    match question {
        Question::Delivery(id) => read::one(id),
        Question::Events(question) => read::events_of(question),
        Question::Deliveries(question) => read::list(question),
        Question::Quarantine(question) => read::list_of_quarantine(question),
        Question::Stats(question) => stats::counts(question, question.to),
    }
}

fn explained(mut statement: QueryBuilder<Db>) -> QueryBuilder<Db> {
    let sql = format!("EXPLAIN (ANALYZE, BUFFERS) {}", statement.sql().as_str());
    let arguments = statement.build().take_arguments().ok().flatten().unwrap_or_default();
    QueryBuilder::with_arguments(sql, arguments)
}
